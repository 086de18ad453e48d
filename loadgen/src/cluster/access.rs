//! How NATS is reached: where, as whom, and whom to trust.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use async_nats::{ConnectOptions, ServerAddr};

/// Flags of the connection to NATS.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Access {
    /// The NATS server: nats://HOST:PORT, or tls://HOST:PORT; with nats://USER:PASSWORD@HOST or
    /// nats://TOKEN@HOST it is told who asks. Other users of this machine can read a command line:
    /// where that matters, use --nats-creds
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// A file with credentials of NATS (a JWT and its seed)
    #[arg(long, value_name = "FILE", requires = "nats")]
    pub nats_creds: Option<PathBuf>,
    /// Certificates (PEM) to trust beside those of this system
    #[arg(long, value_name = "FILE", requires = "nats")]
    pub nats_ca: Option<PathBuf>,
    /// This side's own certificate (PEM), for a NATS server that asks for it
    #[arg(long, value_name = "FILE", requires = "nats_key")]
    pub nats_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "nats_cert")]
    pub nats_key: Option<PathBuf>,
}

impl Access {
    /// The address without what is secret in it, for people.
    pub(super) fn shown(&self) -> String {
        match self.address() {
            Ok(addr) => format!("{}://{}:{}", addr.scheme(), addr.host(), addr.port()),
            Err(_) => "NATS".into(),
        }
    }

    pub(super) fn address(&self) -> Result<ServerAddr> {
        let url = self.nats.as_deref().context("name a NATS server: --nats URL")?;
        // The text is not repeated: there may be a password in it.
        url.parse().map_err(|_| anyhow!("--nats is no address; write nats://HOST:PORT"))
    }

    /// What the client is to be told of it.
    pub(super) async fn options(&self) -> Result<ConnectOptions> {
        let addr = self.address()?;
        let mut options = ConnectOptions::new();
        options = match (addr.username(), addr.password()) {
            (Some(user), Some(password)) => {
                options.user_and_password(user.to_owned(), password.to_owned())
            }
            (Some(token), None) => options.token(token.to_owned()),
            _ => options,
        };
        if let Some(file) = &self.nats_creds {
            let read = options.credentials_file(file).await;
            options = read.with_context(|| format!("cannot read {}", file.display()))?;
        }
        if let Some(file) = &self.nats_ca {
            std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
            options = options.add_root_certificates(file.clone());
        }
        if let Some((cert, key)) = self.nats_cert.as_ref().zip(self.nats_key.as_ref()) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(options.require_tls(addr.scheme() == "tls"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_in_an_address_is_not_shown() {
        let access = |url: &str| Access { nats: Some(url.to_owned()), ..Access::default() };
        let shown = |url| access(url).shown();
        assert_eq!(shown("nats://me:secret@there:4333"), "nats://there:4333");
        assert_eq!(shown("there"), "nats://there:4222");
        let wrong = access("http://me:secret@there").address().unwrap_err().to_string();
        assert!(!wrong.contains("secret") && wrong.contains("nats://HOST:PORT"), "{wrong}");
        assert!(Access::default().address().is_err());
    }
}
