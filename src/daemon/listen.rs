//! Answers how the daemon does: `/metrics`, `/healthz` and `/readyz` over HTTP, on this host.
//!
//! HTTP as far as three addresses need it: one GET a connection, no body, a few connections at once,
//! each for a bounded time.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info};

use super::DaemonError;
use crate::ledger;
use crate::pipeline::Meter;
use crate::registry::{Registry, RegistryError};

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

/// What can be seen from outside.
pub(super) struct View {
    pub(super) registry: Registry,
    pub(super) meter: Arc<Meter>,
    pub(super) ready: Arc<AtomicBool>,
}

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

/// Answers until asked to stop.
pub(super) async fn serve(
    listener: Option<TcpListener>,
    mut view: View,
    mut stop: watch::Receiver<bool>,
) {
    let Some(listener) = listener else { return };
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            error!(%error, "cannot listen");
            return;
        }
    };
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept(), if asking.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    asking.spawn(ask(stream));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(asked) = asking.join_next() => {
                if let Ok(Some((stream, request))) = asked {
                    let answer = view.answer(&request);
                    asking.spawn(send(stream, answer));
                }
            }
        }
    }
}

/// Reads one request; none if it does not come in time or does not end.
async fn ask(mut stream: TcpStream) -> Option<(TcpStream, Vec<u8>)> {
    let mut request = Vec::new();
    let read = async {
        let mut part = [0; 1_024];
        while memchr::memmem::find(&request, b"\r\n\r\n").is_none() {
            let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
            request.extend_from_slice(part.get(..count)?);
            if request.len() > REQUEST_MAX {
                return None;
            }
        }
        Some(())
    };
    timeout(DEADLINE, read).await.ok()??;
    Some((stream, request))
}

async fn send(mut stream: TcpStream, answer: String) -> Option<(TcpStream, Vec<u8>)> {
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whoever does not take the answer does not get it.
    let _taken = matches!(timeout(DEADLINE, write).await, Ok(Ok(())));
    None
}

impl View {
    fn answer(&mut self, request: &[u8]) -> String {
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
            "/metrics" => match self.metrics() {
                Ok(text) => response("200 OK", METRICS, &text),
                Err(error) => {
                    error!(%error, "the registry could not be asked for its totals");
                    unavailable("the registry cannot be read; the log says why\n")
                }
            },
            "/healthz" => match self.registry.key_count() {
                Ok(_) => response("200 OK", PLAIN, "ok\n"),
                Err(error) => {
                    error!(%error, "the registry could not be asked");
                    unavailable("the registry cannot be read; the log says why\n")
                }
            },
            "/readyz" if self.ready.load(Ordering::Acquire) => response("200 OK", PLAIN, "ready\n"),
            "/readyz" => unavailable("a watch is starting\n"),
            _ => response("404 Not Found", PLAIN, "see /metrics, /healthz and /readyz\n"),
        }
    }

    fn metrics(&mut self) -> Result<String, RegistryError> {
        let totals = ledger::totals(&mut self.registry)?;
        let keys = self.registry.key_count()?;
        let meter = &self.meter;
        let mut text = String::new();
        for (name, help, count) in [
            ("read_bytes", "Bytes read.", &meter.bytes),
            ("read_lines", "Lines read.", &meter.lines),
            ("read_files", "Files read, and parts of logs.", &meter.files),
            ("candidates", "What looked like a key.", &meter.candidates),
            ("registered", "Candidates that are registered keys.", &meter.registered),
            ("unreadable", "Files and folders that could not be read.", &meter.unreadable),
            (
                "errors",
                "Refusals of the database; what they concern is tried again.",
                &meter.errors,
            ),
        ] {
            let name = format!("leakwarden_{name}_total");
            metric(&mut text, &name, "counter", help, &[(String::new(), count.get().to_string())]);
        }
        for what in ["incidents", "actions", "notices"] {
            let of = totals.iter().filter(|total| total.what == what);
            let samples: Vec<(String, String)> = of
                .map(|total| (format!("{{state=\"{}\"}}", total.state), total.count.to_string()))
                .collect();
            let help = format!("How many {what} the registry holds, by what became of them.");
            metric(&mut text, &format!("leakwarden_{what}"), "gauge", &help, &samples);
        }
        let lag = Duration::from_millis(meter.lag_ms.get()).as_secs_f64();
        let ready = u8::from(self.ready.load(Ordering::Acquire));
        for (name, help, value) in [
            ("keys", "Live keys in the registry: the size of the filter.", keys.to_string()),
            ("queued_batches", "What was read and is not written.", meter.queued.get().to_string()),
            ("lag_seconds", "From reading to writing, the last time.", lag.to_string()),
            ("ready", "Whether every watch misses nothing.", ready.to_string()),
        ] {
            let name = format!("leakwarden_{name}");
            metric(&mut text, &name, "gauge", help, &[(String::new(), value)]);
        }
        Ok(text)
    }
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, samples: &[(String, String)]) {
    // Writing to a string cannot fail.
    let mut line = |line: std::fmt::Arguments<'_>| text.write_fmt(line).unwrap_or_default();
    line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    for (labels, value) in samples {
        line(format_args!("{name}{labels} {value}\n"));
    }
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
