//! Answers how the daemon does: `/metrics`, `/healthz` and `/readyz` over HTTP, on this host, and
//! `/status` to those who reach the socket in the registry's folder.
//!
//! HTTP as far as three addresses need it: one GET a connection, no body, a few connections at once,
//! each for a bounded time.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info};

use super::DaemonError;
use super::socket::Socket;
use super::status::View;
use crate::registry::RegistryError;

/// Connections at once; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// Longest request.
const REQUEST_MAX: usize = 8 * 1024;
/// For reading a request, and for writing an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// After an error of the system, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// The form of Prometheus, as its scrapers ask for it.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

const JSON: &str = "application/json";

/// A connection, and whether it came by the socket in the registry's folder.
struct Asking {
    stream: Box<dyn Both>,
    inside: bool,
}

/// Reads and writes.
trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}

/// Takes the address, if one is configured.
pub(super) fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, DaemonError> {
    let Some(address) = address else { return Ok(None) };
    let failed = |error| DaemonError::Listen(address, error);
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    info!(%address, "listening");
    Ok(Some(listener))
}

/// Where connections come from.
struct Doors {
    tcp: Option<tokio::net::TcpListener>,
    socket: tokio::net::UnixListener,
}

impl Doors {
    fn open(tcp: Option<TcpListener>, socket: &Socket) -> std::io::Result<Self> {
        let tcp = tcp.map(tokio::net::TcpListener::from_std).transpose()?;
        Ok(Self { tcp, socket: socket.listener()? })
    }

    async fn next(&self) -> std::io::Result<Asking> {
        let tcp = async {
            match &self.tcp {
                Some(tcp) => tcp.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = tcp => {
                accepted.map(|(stream, _)| Asking { stream: Box::new(stream), inside: false })
            }
            accepted = self.socket.accept() => {
                accepted.map(|(stream, _)| Asking { stream: Box::new(stream), inside: true })
            }
        }
    }
}

/// Answers until asked to stop.
pub(super) async fn serve(
    tcp: Option<TcpListener>,
    socket: &Socket,
    mut view: View,
    mut stop: watch::Receiver<bool>,
) {
    let doors = match Doors::open(tcp, socket) {
        Ok(doors) => doors,
        Err(error) => {
            error!(%error, "cannot listen");
            return;
        }
    };
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = doors.next(), if asking.len() < CONNECTIONS_MAX => match accepted {
                Ok(one) => {
                    asking.spawn(ask(one));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(asked) = asking.join_next() => {
                if let Ok(Some((one, request))) = asked {
                    let answer = view.answer(&request, one.inside);
                    asking.spawn(send(one, answer));
                }
            }
        }
    }
}

/// Reads one request; none if it does not come in time or does not end.
async fn ask(mut one: Asking) -> Option<(Asking, Vec<u8>)> {
    let mut request = Vec::new();
    let read = async {
        let mut part = [0; 1_024];
        while memchr::memmem::find(&request, b"\r\n\r\n").is_none() {
            let count = one.stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
            request.extend_from_slice(part.get(..count)?);
            if request.len() > REQUEST_MAX {
                return None;
            }
        }
        Some(())
    };
    timeout(DEADLINE, read).await.ok()??;
    Some((one, request))
}

async fn send(mut one: Asking, answer: String) -> Option<(Asking, Vec<u8>)> {
    let write = async {
        one.stream.write_all(answer.as_bytes()).await?;
        one.stream.shutdown().await
    };
    // Whoever does not take the answer does not get it.
    let _taken = matches!(timeout(DEADLINE, write).await, Ok(Ok(())));
    None
}

impl View {
    fn answer(&mut self, request: &[u8], inside: bool) -> String {
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        if !words.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
            return response("400 Bad Request", PLAIN, "not a request of HTTP/1\n");
        }
        if method != Some("GET") {
            return response("405 Method Not Allowed\r\nAllow: GET", PLAIN, "GET only\n");
        }
        match target.split('?').next().unwrap_or_default() {
            "/metrics" => match self.status() {
                Ok(status) => response("200 OK", METRICS, &status.metrics()),
                Err(error) => unreadable(&error),
            },
            // It names paths.
            "/status" if inside => match self.status() {
                Ok(status) => match serde_json::to_string(&status) {
                    Ok(text) => response("200 OK", JSON, &text),
                    Err(_) => unavailable("the status cannot be written\n"),
                },
                Err(error) => unreadable(&error),
            },
            "/healthz" => match (self.registry.key_count(), self.board.stuck().is_empty()) {
                (Ok(_), true) => response("200 OK", PLAIN, "ok\n"),
                (Ok(_), false) => unavailable("a part is stuck; the log says which\n"),
                (Err(error), _) => unreadable(&error),
            },
            "/readyz" if self.board.ready.load(Ordering::Acquire) => {
                response("200 OK", PLAIN, "ready\n")
            }
            "/readyz" => match self.board.count() {
                (_, 0) => unavailable("a watch is starting\n"),
                _ => unavailable("a watch failed and waits for its next start\n"),
            },
            _ => response("404 Not Found", PLAIN, "see /metrics, /healthz and /readyz\n"),
        }
    }
}

fn unreadable(error: &RegistryError) -> String {
    error!(%error, "the registry could not be asked");
    unavailable("the registry cannot be read; the log says why\n")
}

fn unavailable(why: &str) -> String {
    response("503 Service Unavailable", PLAIN, why)
}

fn response(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}
