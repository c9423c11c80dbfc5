//! Logs that are not at their path any more: renamed, cut, replaced or deleted.
//!
//! Under another name they are found by their content. One that has no name is read to its end
//! through the file that stayed open. What is nowhere is lost, and told.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::content::{head_of, holds, sum_up};
use super::logs::Kept;
use super::{Follow, Followed, Known, Part, siblings};
use crate::source::{Kind, PathId, Sink, Stat, Stop, path_id, reader};

/// A log is remembered so long after it was there, or grew, last: who writes to it may not know yet,
/// and what it is compressed to comes later.
const LINGER: Duration = Duration::from_secs(60);
/// What nobody has open is looked for so long: it may be renamed while its folder is listed.
const GRACE: Duration = Duration::from_secs(3);

/// A log whose place is not known.
pub(super) struct Adrift {
    /// Where it was; the root of the watch if an earlier run knew it.
    path: PathBuf,
    /// The same before rotation; `None`: nobody knows where it was.
    pub(super) unrotated: Option<PathBuf>,
    id: PathId,
    pub(super) followed: Followed,
    kept: Option<Kept>,
    /// It was cut where it was: it is nowhere else.
    cut: bool,
    /// There is more to read.
    more: bool,
    /// It was found, or told as lost.
    settled: bool,
    /// It is not remembered for a later run any more.
    forgotten: bool,
    quiet_since: Instant,
}

impl Adrift {
    fn new(path: &Path, id: PathId, followed: Followed, now: Instant) -> Self {
        Self {
            path: path.to_owned(),
            unrotated: None,
            id,
            followed,
            kept: None,
            cut: false,
            more: false,
            settled: false,
            forgotten: false,
            quiet_since: now,
        }
    }
}

impl Follow {
    /// What is at a path is not the log that was there: looks where that went.
    pub(super) fn cast_off(
        &mut self,
        path: &Path,
        now_there: Option<&Stat>,
        now: Instant,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) {
        let Some(known) = self.files.remove(path) else { return };
        let Known { followed, kept, .. } = known;
        let cut = now_there.is_some_and(|stat| stat.is_same_file(&followed.stat));
        let kept = kept.filter(|kept| !cut && holds(&kept.0, &followed).unwrap_or(false));
        let more = kept.is_some();
        let log = self.set_adrift(path_id(path), path, followed, now, sink);
        let unrotated = siblings::unrotated(path);
        self.adrift.push(Adrift { unrotated, kept, cut, more, ..log });
        self.look_at_siblings(path, now, sink, stop);
        self.settle_adrift(now, sink);
    }

    /// The same for one that an earlier run knew and this one did not meet.
    pub(super) fn miss(
        &mut self,
        id: PathId,
        followed: Followed,
        now: Instant,
        sink: &mut dyn Sink,
    ) {
        let log = self.set_adrift(id, self.options.include.root(), followed, now, sink);
        self.adrift.push(log);
    }

    /// Another log may be remembered under its path in a moment: it is under its own name.
    fn set_adrift(
        &self,
        known_as: PathId,
        path: &Path,
        followed: Followed,
        now: Instant,
        sink: &mut dyn Sink,
    ) -> Adrift {
        let id = path_id(Path::new(&followed.stream));
        if id != known_as {
            sink.keep(id, &followed);
            self.forget(known_as, sink);
        }
        Adrift::new(path, id, followed, now)
    }

    fn look_at_siblings(&mut self, path: &Path, now: Instant, sink: &mut dyn Sink, stop: &Stop) {
        // Whoever looks at them looks at all.
        if std::mem::replace(&mut self.among_siblings, true) {
            return;
        }
        for sibling in siblings::of(path) {
            if self.is_member(&sibling) && !stop.is_stopped() {
                self.look(&sibling, now, sink, stop);
            }
        }
        self.among_siblings = false;
    }

    /// Takes note of logs that were found, and of those that are nowhere.
    pub(super) fn settle_adrift(&mut self, now: Instant, sink: &mut dyn Sink) {
        let mut logs = std::mem::take(&mut self.adrift);
        logs.retain_mut(|log| {
            let place =
                self.files.values().find(|known| known.followed.stream == log.followed.stream);
            let is_found = place.is_some();
            let same = |known: &Known| known.followed.stat.is_same_file(&log.followed.stat);
            if place.is_some_and(same) {
                log.kept = None;
            }
            let quiet = now.saturating_duration_since(log.quiet_since);
            let is_nowhere = log.kept.is_none()
                && !self.is_unpacking_like(&log.path)
                && (log.cut || quiet >= GRACE);
            let over = quiet >= LINGER;
            if !log.settled && (is_found || is_nowhere || over) {
                log.settled = true;
                if !is_found {
                    tell_lost(log, sink);
                }
            }
            // What it is compressed to later is to be known also after a restart.
            if (over || is_found) && !std::mem::replace(&mut log.forgotten, true) {
                self.forget(log.id, sink);
            }
            // Where it was found is remembered how far it is read.
            !(over || (is_found && log.kept.is_none()))
        });
        // What was cast off meanwhile; there is nothing.
        logs.append(&mut self.adrift);
        self.adrift = logs;
    }

    /// Looks for more in logs that are open; lets go of files that are quiet.
    pub(super) fn check_open(&mut self, now: Instant) {
        for log in &mut self.adrift {
            let size = log.kept.as_ref().and_then(|kept| reader::stat(&kept.0).ok());
            log.more |= size.is_some_and(|stat| stat.size > log.followed.stat.size);
        }
        let quiet = |at: Instant| now.saturating_duration_since(at) >= LINGER;
        for known in self.files.values_mut().filter(|known| !known.wanted) {
            if known.looked.is_none_or(quiet) {
                known.kept = None;
            }
        }
    }

    /// Reads a slice of each log without a known place that has more.
    pub(super) fn read_adrift(&mut self, now: Instant, sink: &mut dyn Sink, stop: &Stop) {
        let mut logs = std::mem::take(&mut self.adrift);
        for log in logs.iter_mut().filter(|log| log.more && !stop.is_stopped()) {
            log.quiet_since = now;
            if let Err(error) = self.read_one_adrift(log, sink, stop) {
                self.complain(&log.path, &error, sink);
                log.more = false;
            }
        }
        logs.append(&mut self.adrift);
        self.adrift = logs;
    }

    fn read_one_adrift(
        &mut self,
        log: &mut Adrift,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> std::io::Result<()> {
        log.more = false;
        let Some(kept) = &mut log.kept else { return Ok(()) };
        let stat = reader::stat(&kept.0)?;
        if stat.size <= log.followed.position.offset || !holds(&kept.0, &log.followed)? {
            return Ok(());
        }
        log.followed.head = head_of(&kept.0, log.followed.head)?;
        let (known_as, from) = (Some(log.id), log.followed.clone());
        let part = Part { path: &log.path, known_as, kind: Kind::Log, stat, from };
        if let Some(read) = self.read_part(&mut kept.0, &part, sink, stop)? {
            log.more = read.stat.is_unfinished();
            log.followed = read;
            sum_up(&kept.0, &mut log.followed)?;
        }
        Ok(())
    }

    /// Whether logs without a known place have more to read.
    pub(super) fn has_more_adrift(&self) -> bool {
        self.adrift.iter().any(|log| log.more)
    }

    /// What is unread of logs that have no name goes with them.
    pub(super) fn give_up_adrift(&mut self, sink: &mut dyn Sink) {
        let logs = std::mem::take(&mut self.adrift);
        for mut log in logs.into_iter().filter(|log| !log.settled) {
            let Some(stat) = log.kept.as_ref().and_then(|kept| reader::stat(&kept.0).ok()) else {
                continue;
            };
            if log.followed.stat.is_unfinished() || stat.size > log.followed.stat.size {
                log.followed.stat = stat.unfinished();
                tell_lost(&log, sink);
            }
        }
    }
}

fn tell_lost(log: &Adrift, sink: &mut dyn Sink) {
    let Followed { stat, position, .. } = &log.followed;
    if stat.is_unfinished() {
        sink.lost(&log.path, stat.size.saturating_sub(position.offset));
    }
}
