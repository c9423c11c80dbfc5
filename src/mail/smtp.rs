//! One SMTP transaction: bounded in time, bounded in what the server may say.
//!
//! lettre's own timeout ends with the connection (its async transport waits for ever after it), and
//! a server that sends bytes without a newline would fill the memory. So the whole transaction runs
//! under a deadline, over a stream that breaks off after [`ANSWERS_MAX`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
#[expect(deprecated, reason = "the only way to lettre's TLS over a stream of one's own")]
use lettre::transport::smtp::client::AsyncNetworkStream;
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use zeroize::Zeroizing;

use crate::mail::Attempt;
use crate::registry::RegistryError;

/// Bytes a server may send in one transaction, TLS included.
const ANSWERS_MAX: usize = 256 * 1024;

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// From the first byte.
    Implicit,
    /// By STARTTLS, which the server must offer.
    StartTls,
    /// Not at all; to this host only.
    None,
}

/// A mail server.
pub struct Smtp {
    host: String,
    port: u16,
    tls: Tls,
    credentials: Option<(String, Zeroizing<String>)>,
    deadline: Duration,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// Mail would go over the network in the clear.
    #[error(
        "`tls: none` is for a server on this host only, and {0} is not; use implicit or starttls"
    )]
    Plain(String),
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Smtp({}:{}, {:?})", self.host, self.port, self.tls)
    }
}

impl Smtp {
    /// Refuses to send in the clear to another host.
    pub fn check(host: &str, tls: Tls) -> Result<(), SmtpError> {
        let loopback = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if tls == Tls::None && !loopback { Err(SmtpError::Plain(host.to_owned())) } else { Ok(()) }
    }

    /// Checks the settings. `deadline`: for one whole transaction.
    pub fn new(
        host: String,
        port: u16,
        tls: Tls,
        credentials: Option<(String, Zeroizing<String>)>,
        deadline: Duration,
    ) -> Result<Self, SmtpError> {
        Self::check(&host, tls)?;
        Ok(Self { host, port, tls, credentials, deadline })
    }

    /// Sends one mail. `doubt` is called, and must have committed, before the mail's text goes out:
    /// up to then it is surely not delivered, from then on only the server's answer tells.
    pub(super) async fn send(
        &self,
        message: &Message,
        doubt: impl FnOnce() -> Result<(), RegistryError>,
    ) -> Attempt {
        let end = tokio::time::Instant::now() + self.deadline;
        let envelope = message.envelope();
        let (Some(from), [to]) = (envelope.from().cloned(), envelope.to()) else {
            return Attempt::Permanent("a notice has one sender and one recipient".to_owned());
        };
        let opened = tokio::time::timeout_at(end, guarded(self.open(from, to.clone()))).await;
        let mut connection = match opened {
            Err(_) => return Attempt::Transient(self.too_slow()),
            Ok(Err(attempt)) => return attempt,
            Ok(Ok(connection)) => connection,
        };
        if let Err(error) = doubt() {
            return Attempt::Transient(error.to_string());
        }
        let text = message.formatted();
        let data = async move {
            connection.message(&text).await.map(|_| connection).map_err(|error| {
                match classify(&error) {
                    Attempt::Transient(why) if error.status().is_none() => Attempt::Unknown(why),
                    other => other,
                }
            })
        };
        match tokio::time::timeout_at(end, guarded(data)).await {
            Err(_) => Attempt::Unknown(self.too_slow()),
            Ok(Err(attempt)) => attempt,
            Ok(Ok(mut connection)) => {
                // The mail is taken; how the connection ends does not matter any more.
                let farewell = connection.quit();
                let _ended = tokio::time::timeout(Duration::from_secs(1), farewell).await.is_ok();
                Attempt::Sent
            }
        }
    }

    fn too_slow(&self) -> String {
        format!("{} did not answer within {} s", self.host, self.deadline.as_secs())
    }

    /// Everything up to the server's "go ahead" after DATA.
    fn open(
        &self,
        from: Address,
        to: Address,
    ) -> impl Future<Output = Result<AsyncSmtpConnection, Attempt>> + Send + 'static {
        let (host, port, tls) = (self.host.clone(), self.port, self.tls);
        let credentials = self
            .credentials
            .as_ref()
            .map(|(user, password)| Credentials::new(user.clone(), password.to_string()));
        async move {
            let name = ClientId::default();
            let mut connection = connect(&host, port, tls, &name).await?;
            if let Some(credentials) = credentials {
                let known = [Mechanism::Plain, Mechanism::Login];
                connection.auth(&known, &credentials).await.map_err(|e| healing(&e))?;
            }
            let mail = Mail::new(Some(from), Vec::new());
            connection.command(mail).await.map_err(|e| classify(&e))?;
            connection.command(Rcpt::new(to, Vec::new())).await.map_err(|e| classify(&e))?;
            connection.command(Data).await.map_err(|e| classify(&e))?;
            Ok(connection)
        }
    }
}

async fn connect(
    host: &str,
    port: u16,
    tls: Tls,
    name: &ClientId,
) -> Result<AsyncSmtpConnection, Attempt> {
    let parameters = || TlsParameters::new(host.to_owned()).map_err(|e| healing(&e));
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|e| Attempt::Transient(format!("cannot connect to {host}:{port}: {e}")))?;
    let mut stream: Box<dyn AsyncTokioStream> = Box::new(Metered { stream, left: ANSWERS_MAX });
    if tls == Tls::Implicit {
        stream = encrypted(stream, parameters()?).await?;
    }
    let mut connection =
        AsyncSmtpConnection::connect_with_transport(stream, name).await.map_err(|e| healing(&e))?;
    if tls == Tls::StartTls {
        if !connection.can_starttls() {
            let why = format!("{host} offers no STARTTLS, and mail is not sent in the clear");
            return Err(Attempt::Transient(why));
        }
        connection.starttls(parameters()?, name).await.map_err(|e| healing(&e))?;
    }
    Ok(connection)
}

/// TLS over a stream that is metered already: lettre's own way would not be.
#[expect(deprecated, reason = "the only way to lettre's TLS over a stream of one's own")]
async fn encrypted(
    stream: Box<dyn AsyncTokioStream>,
    parameters: TlsParameters,
) -> Result<Box<dyn AsyncTokioStream>, Attempt> {
    let peer = stream.peer_addr().map_err(|e| Attempt::Transient(e.to_string()))?;
    let mut stream = AsyncNetworkStream::use_existing_tokio1(stream);
    stream.upgrade_tls(parameters).await.map_err(|e| healing(&e))?;
    Ok(Box::new(Encrypted { stream: stream.compat(), peer }))
}

/// An error before the mail itself is spoken of: a wrong password or certificate is mended by
/// people, and the notice waits for that.
fn healing(error: &Error) -> Attempt {
    match classify(error) {
        Attempt::Permanent(why) => Attempt::Transient(why),
        other => other,
    }
}

/// 5xx is for ever, all else may heal.
fn classify(error: &Error) -> Attempt {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    let text = crate::text::clean(text.as_bytes());
    if error.is_permanent() { Attempt::Permanent(text) } else { Attempt::Transient(text) }
}

/// Runs in a task of its own, so that a panic in the library ends an attempt and not the daemon.
async fn guarded<T: Send + 'static>(
    work: impl Future<Output = Result<T, Attempt>> + Send + 'static,
) -> Result<T, Attempt> {
    let mut task = AbortOnDrop(tokio::spawn(work));
    match (&mut task.0).await {
        Ok(answer) => answer,
        Err(_) => Err(Attempt::Permanent("the mail library panicked on this mail".to_owned())),
    }
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// lettre's encrypted stream, as lettre wants to be given it.
#[derive(Debug)]
#[expect(deprecated, reason = "the type of lettre's own streams")]
struct Encrypted {
    stream: Compat<AsyncNetworkStream>,
    peer: SocketAddr,
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncTokioStream for Encrypted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

/// A stream that breaks off when the other side has sent too much.
#[derive(Debug)]
struct Metered {
    stream: TcpStream,
    left: usize,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let answer = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(left) = self.left.checked_sub(buffer.filled().len() - before) else {
            return Poll::Ready(Err(io::Error::other("the server sends without end")));
        };
        self.left = left;
        answer
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncTokioStream for Metered {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}
