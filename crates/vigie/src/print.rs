//! What goes to the terminal rather than into a log: reports, answers to commands.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// How long a complaint is waited for. Chosen.
const PATIENCE: Duration = Duration::from_millis(100);
/// So many wait while nobody reads standard error; later ones are left out. Chosen.
const MOST_WAITING: usize = 64;

/// To standard output. A closed pipe is no reason to stop.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// To standard error.
pub(crate) fn complain(text: &str) {
    // In one piece: the log has a thread of its own, and its lines would come in between.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Complaints of a process that serves: whoever reads standard error may have stopped, which holds up nothing else.
pub(crate) struct Complaints(Mutex<Line>);

struct Line {
    tell: SyncSender<String>,
    told: Receiver<()>,
    /// Not written yet.
    waiting: usize,
}

impl Complaints {
    /// `write` is called on a thread of its own, and may block.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn through(write: impl Fn(&str) + Send + 'static) -> io::Result<Self> {
        let (tell, texts) = sync_channel::<String>(MOST_WAITING);
        let (say, told) = sync_channel(MOST_WAITING + 1);
        thread::Builder::new().name("complaints".to_owned()).spawn(move || {
            for text in texts {
                write(&text);
                let _ = say.try_send(());
            }
        })?;
        Ok(Self(Mutex::new(Line { tell, told, waiting: 0 })))
    }

    /// Returns when it is written, as long as that does not take long.
    pub(crate) fn add(&self, text: &str) {
        let Ok(mut line) = self.0.lock() else { return };
        line.waiting = line.waiting.saturating_sub(line.told.try_iter().count());
        if line.tell.try_send(text.to_owned()).is_ok()
            && (line.waiting > 0 || line.told.recv_timeout(PATIENCE).is_err())
        {
            line.waiting += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_long_for_those_who_read_complaints() {
        let (go_on, wait) = sync_channel::<()>(0);
        let (write, written) = sync_channel(1000);
        let complaints = Complaints::through(move |text| {
            let _ = wait.recv();
            let _ = write.send(text.to_owned());
        });
        let complaints = complaints.unwrap();
        for number in 0..200 {
            complaints.add(&number.to_string());
        }
        assert_eq!(written.try_iter().count(), 0);
        drop(go_on);
        // The one that was being written, and those behind it.
        let first: Vec<_> = (0..=MOST_WAITING).map(|_| written.recv().unwrap()).collect();
        assert!(first.iter().zip(0..).all(|(text, number)| *text == number.to_string()), "{first:?}");
        complaints.add("last");
        assert_eq!(written.recv().unwrap(), "last");
    }
}
