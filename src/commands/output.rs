//! The only place that prints.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::cli::ListFormat;

/// What goes to standard output is gathered up to this.
const BUFFER_BYTES: usize = 64 * 1024;

/// Prints to standard output; a reader that went away is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    to_stdout(|out| out.write_all(text.as_bytes()))
}

/// Writes to standard output, where colours go to terminals only.
pub(super) fn to_stdout(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let stdout = io::stdout();
    let is_plain = anstream::AutoStream::choice(&stdout) == anstream::ColorChoice::Never;
    let mut buffer = BufWriter::with_capacity(BUFFER_BYTES, stdout.lock());
    let written = if is_plain { stripped(&mut buffer, write) } else { write(&mut buffer) };
    match written.and_then(|()| buffer.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Writes without colours. What is behind gathers what is written: it comes in small parts.
fn stripped(
    out: &mut (impl Write + 'static),
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let out: &mut dyn Write = out;
    write(&mut anstream::StripStream::new(out))
}

/// Writes to a file, without colours.
pub(super) fn to_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut buffer = BufWriter::new(file);
    stripped(&mut buffer, write)
        .and_then(|()| buffer.flush())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a file in the place of what is there, a link included; whoever reads it meanwhile has the
/// old one or the new one, whole.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let written = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            Ok(file)
        })
        .and_then(|file| file.persist(path).map_err(|error| error.error));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Tells people something beside the output.
pub(super) fn note(text: &str) {
    // When standard error is gone there is nobody to tell.
    let _written = writeln!(anstream::stderr(), "{text}").is_ok();
}

/// Tells what went wrong.
pub(super) fn error(text: &str) {
    note(&format!("\x1b[1;31merror\x1b[0m: {text}"));
}

/// Asks a question; only `y` or `yes` on a terminal is a yes.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        anyhow::bail!("{question} Say so with --force: there is no terminal to ask on");
    }
    let _written = write!(anstream::stderr(), "{question} [y/N] ").is_ok();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Answers with a line, or with what a machine reads.
pub(super) fn answer(
    format: ListFormat,
    text: &str,
    value: &serde_json::Value,
) -> anyhow::Result<()> {
    match format {
        ListFormat::Text => print(&format!("{text}\n")),
        ListFormat::Json => json(value),
    }
}

/// Pretty JSON and a newline.
pub(super) fn json(value: &serde_json::Value) -> anyhow::Result<()> {
    print(&format!("{value:#}\n"))
}
