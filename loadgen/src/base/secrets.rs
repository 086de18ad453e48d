//! What is not kept of a command line: users, passwords and tokens in addresses.

/// The flag whose value may be an address without its scheme.
const NATS: &str = "--nats";
/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// A command, word by word, as a record may have it.
pub fn shown(command: impl Iterator<Item = String>) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    for word in command {
        let of_nats = shown.last().is_some_and(|last| last == NATS) || word.starts_with("--nats=");
        shown.push(if of_nats || word.contains("://") { hidden(&word) } else { word });
    }
    shown
}

/// An address, perhaps behind a flag, without what stands before the host.
fn hidden(word: &str) -> String {
    let Some(at) = word.rfind('@') else { return word.to_owned() };
    let (before, host) = word.split_at(at);
    let start = match (before.find("://"), before.find('=')) {
        (Some(scheme), _) => scheme + "://".len(),
        (None, Some(flag)) => flag + "=".len(),
        (None, None) => 0,
    };
    format!("{}{HIDDEN}{host}", &before[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_host_of_an_address_is_not_kept() {
        let shown = |words: &[&str]| shown(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(shown(&["--nats", "nats://me:pass@there:1"]), ["--nats", "nats://***@there:1"]);
        assert_eq!(shown(&["--nats", "me:pass@there"]), ["--nats", "***@there"]);
        assert_eq!(shown(&["--nats=token@there"]), ["--nats=***@there"]);
        assert_eq!(shown(&["--nats=tls://t=o@ken@there"]), ["--nats=tls://***@there"]);
        assert_eq!(shown(&["--metrics-push", "http://a:b@c/d"])[1], "http://***@c/d");
        let plain = ["run", "--nats", "nats://there", "--cmd", "serve a@b {addr}"];
        assert_eq!(shown(&plain), plain);
    }
}
