//! Shows the pages on this machine: a small server of files on loopback.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, anyhow};
use tiny_http::{Header, Request, Response, Server};

/// Serves the files below `folder` until the process is ended.
///
/// # Errors
///
/// When the port cannot be had.
pub fn serve(folder: &Path, port: u16, terminal: &mut impl Write) -> Result<()> {
    let server = Server::http((Ipv4Addr::LOCALHOST, port)).map_err(|error| anyhow!(error))?;
    writeln!(terminal, "http://{}/", server.server_addr())?;
    for request in server.incoming_requests() {
        // An error is one client's, which may be gone.
        let _ = answer(folder, request);
    }
    Ok(())
}

fn answer(folder: &Path, request: Request) -> Result<()> {
    let path = request.url().split(['?', '#']).next().unwrap_or_default();
    let Some(file) = below(path).map(|path| folder.join(path)) else {
        return Ok(request.respond(Response::empty(404))?);
    };
    let file = if file.is_dir() { file.join("index.html") } else { file };
    let Ok(content) = File::open(&file) else {
        return Ok(request.respond(Response::empty(404))?);
    };
    let kind = Header::from_bytes("Content-Type", content_type(&file))
        .map_err(|()| anyhow!("a header that is none"))?;
    Ok(request.respond(Response::from_file(content).with_header(kind))?)
}

/// The path below the folder, if it has no part that leads out of it. The names of the book's files
/// have no sign that a browser escapes.
fn below(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path.trim_start_matches('/'));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then_some(path)
}

fn content_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        assert_eq!(below("/a/b.html"), Some("a/b.html".into()));
        assert_eq!(below("/"), Some("".into()));
        assert_eq!(below("/../a"), None);
        assert_eq!(below("/a/../../b"), None);
        assert_eq!(below("//etc/passwd"), Some("etc/passwd".into()));
    }
}
