//! A body that is kept: its beginning in memory, the rest in a file without a name.
//!
//! The file is written and read on the runtime's threads for blocking work, a piece at a time: a slow disk makes its own
//! request wait and no other.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

/// What goes to or comes from the file at a time. Chosen; with a large body two of them are in memory.
const PIECE: usize = 256 * 1024;

/// Written to its end, then read, perhaps several times.
pub(crate) struct Spool {
    most_memory: usize,
    /// Three parts, one behind the other: up to `most_memory`, ...
    memory: Vec<u8>,
    /// ... whole pieces, if there are any, ...
    file: Option<Arc<File>>,
    in_file: u64,
    /// ... and less than a piece, or one that is not written yet.
    tail: Vec<u8>,
    /// A piece on its way to or from the file.
    moving: Option<JoinHandle<io::Result<Moved>>>,
    /// How much was read again.
    at: u64,
    /// A piece that was read from the file or written to it, and its place in there.
    window: Vec<u8>,
    window_at: u64,
}

struct Moved {
    file: Arc<File>,
    piece: Vec<u8>,
}

impl Spool {
    pub(super) fn new(most_memory: usize) -> Self {
        let (memory, tail, window) = (Vec::new(), Vec::new(), Vec::new());
        Self { most_memory, memory, file: None, in_file: 0, tail, moving: None, at: 0, window, window_at: 0 }
    }

    /// An empty one that keeps as much in memory.
    pub(super) fn another(&self) -> Self {
        Self::new(self.most_memory)
    }

    /// Keeps up to so much in memory, if nothing has gone to the file yet.
    pub(super) fn allow(&mut self, most_memory: usize) {
        if self.in_file == 0 && self.tail.is_empty() {
            self.most_memory = self.most_memory.max(most_memory);
        }
    }

    /// The same for somebody else to read, once it is written to its end.
    pub(super) fn share(&self) -> Option<Self> {
        let is_whole = self.in_file == 0 || self.file.is_some();
        is_whole.then(|| Self {
            memory: self.memory.clone(),
            file: self.file.clone(),
            in_file: self.in_file,
            tail: self.tail.clone(),
            ..self.another()
        })
    }

    /// What it takes in memory while it is read.
    pub(super) fn memory(&self) -> usize {
        let window = if self.in_file > 0 { PIECE } else { 0 };
        self.memory.len() + self.tail.len() + window
    }

    pub(super) fn len(&self) -> u64 {
        self.memory.len() as u64 + self.in_file + self.tail.len() as u64
    }

    /// Takes some of `data`, at least one byte when ready.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let in_memory = data.len().min(self.most_memory - self.memory.len());
        if in_memory > 0 {
            self.memory.extend_from_slice(&data[..in_memory]);
            return Poll::Ready(Ok(in_memory));
        }
        if self.tail.len() == PIECE {
            ready!(self.poll_moved(cx))?;
            let spare = std::mem::take(&mut self.window);
            let piece = std::mem::replace(&mut self.tail, spare);
            self.tail.clear();
            self.write_piece(piece);
        }
        let count = data.len().min(PIECE - self.tail.len());
        self.tail.extend_from_slice(&data[..count]);
        Poll::Ready(Ok(count))
    }

    fn write_piece(&mut self, piece: Vec<u8>) {
        let (file, at) = (self.file.clone(), self.in_file);
        self.in_file += piece.len() as u64;
        self.window_at = at;
        self.moving = Some(tokio::task::spawn_blocking(move || {
            let file = file.map_or_else(|| tempfile::tempfile().map(Arc::new), Ok)?;
            file.write_all_at(&piece, at)?;
            Ok(Moved { file, piece })
        }));
    }

    /// Ready when nothing is on its way to the file.
    pub(super) fn poll_moved(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(moving) = &mut self.moving {
            let moved = ready!(Pin::new(moving).poll(cx));
            self.moving = None;
            let Moved { file, piece } = moved.map_err(io::Error::other)??;
            self.file = Some(file);
            self.window = piece;
        }
        Poll::Ready(Ok(()))
    }

    /// Begins to read at the beginning.
    pub(super) fn rewind(&mut self) {
        self.at = 0;
    }

    /// Ready with whether [`data`](Self::data) has something.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.data().is_empty() {
            if self.at == self.len() {
                return Poll::Ready(Ok(false));
            }
            ready!(self.poll_moved(cx))?;
            if self.data().is_empty() {
                self.read_piece()?;
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Only what is in the file has to be read from it.
    fn read_piece(&mut self) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let at = self.at - self.memory.len() as u64;
        let length = usize::try_from(self.in_file - at).map_or(PIECE, |left| left.min(PIECE));
        let mut piece = std::mem::take(&mut self.window);
        self.window_at = at;
        self.moving = Some(tokio::task::spawn_blocking(move || {
            piece.resize(length, 0);
            file.read_exact_at(&mut piece, at)?;
            Ok(Moved { file, piece })
        }));
        Ok(())
    }

    pub(super) fn data(&self) -> &[u8] {
        let behind =
            |part: &[u8], begin: u64| usize::try_from(begin).map_or(part.len(), |at| at.min(part.len()));
        let memory = self.memory.len() as u64;
        if self.at < memory {
            return &self.memory[behind(&self.memory, self.at)..];
        }
        let in_file = self.at - memory;
        if in_file >= self.in_file {
            return &self.tail[behind(&self.tail, in_file - self.in_file)..];
        }
        match in_file.checked_sub(self.window_at) {
            Some(begin) => &self.window[behind(&self.window, begin)..],
            None => &[],
        }
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.at += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn write(spool: &mut Spool, mut data: &[u8]) {
        while !data.is_empty() {
            let count = poll_fn(|cx| spool.poll_write(cx, data)).await.unwrap();
            data = &data[count..];
        }
    }

    async fn read(spool: &mut Spool) -> Vec<u8> {
        let mut all = Vec::new();
        while poll_fn(|cx| spool.poll_read(cx)).await.unwrap() {
            // Not all at once.
            let count = spool.data().len().min(100_000);
            all.extend_from_slice(&spool.data()[..count]);
            spool.consume(count);
        }
        all
    }

    #[tokio::test]
    async fn what_was_written_is_read_as_often_as_wanted() {
        for (memory, length) in [
            (10, 0),
            (10, 10),
            (10, 11),
            (1000, PIECE),
            (1, PIECE + 1),
            (1, PIECE + 2),
            (1, 2 * PIECE + 1),
            (1, 5 * PIECE + 77),
            (PIECE, 3 * PIECE),
        ] {
            let body: Vec<u8> = (0..length).map(|at| (at / 7 % 251) as u8).collect();
            let mut spool = Spool::new(memory);
            for part in body.chunks(30_001) {
                write(&mut spool, part).await;
            }
            assert_eq!(spool.len(), length as u64);
            assert_eq!(spool.memory.len(), length.min(memory));
            assert_eq!(spool.in_file > 0, length > memory + PIECE, "{memory} {length}");
            for _ in 0..2 {
                assert!(read(&mut spool).await == body, "{memory} {length}");
                let mut other = spool.share().unwrap();
                spool.rewind();
                assert!(read(&mut other).await == body, "{memory} {length}");
                assert!(other.memory() <= memory + 2 * PIECE);
            }
        }
    }

    #[tokio::test]
    async fn reading_begins_anew_in_the_middle() {
        let body = vec![7; 4 * PIECE];
        let mut spool = Spool::new(5);
        write(&mut spool, &body).await;
        for consumed in [3, PIECE, 3 * PIECE] {
            let mut left = consumed;
            while left > 0 {
                assert!(poll_fn(|cx| spool.poll_read(cx)).await.unwrap());
                let count = spool.data().len().min(left);
                spool.consume(count);
                left -= count;
            }
            // One more piece may be on its way.
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = spool.poll_read(&mut cx);
            spool.rewind();
            assert!(read(&mut spool).await == body);
            spool.rewind();
        }
    }
}
