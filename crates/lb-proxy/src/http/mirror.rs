//! Copies of requests for mirrors: after the client has its answer, in the background, with nobody to tell.

use std::cell::{Cell, OnceCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lb_http1::{Framing, Head};
use lb_observe::metrics::LabelId;

use super::body::{Fill, Sink, Source};
use super::compose::Walk;
use super::downstream::{Downstream, Unkept};
use super::h1::H1;
use super::handle::Reply;
use super::record::{self, Outcome};
use super::replay::Replay;
use super::spool::Spool;
use super::traced::{self, Traced};
use crate::composite::{Composite, Mirroring};
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::forward::Delivered;
use crate::passage::{Passage, Patience, Renewed};
use crate::worker::Worker;

/// Copies in progress at most, and bytes of bodies that they hold in memory, on each worker. Chosen: a mirror that is slower than
/// its originals must not use up memory or descriptors.
const MOST: usize = 512;
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// How long a mirror may take. Chosen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request for mirrors.
pub(crate) struct Copy {
    head: Head,
    framing: Framing,
    body: Spool,
    append_forwarded_for: bool,
    composite: Arc<Composite>,
    /// By their place.
    mirrors: Vec<usize>,
    trace: Option<Box<Traced>>,
}

impl Copy {
    /// Takes what mirrors get; `None` where nothing is to be mirrored.
    pub(super) fn of<D: Downstream>(
        p: &Passage<'_, '_, D>,
        composite: &Arc<Composite>,
        mirroring: &Mirroring,
        number: u64,
    ) -> Option<Self> {
        // A tunnel has no copy.
        if lb_http1::wants_upgrade(&p.x.head).is_some() {
            return None;
        }
        let mut head = p.x.head.clone();
        let (framing, body) = if !p.framing.has_body() {
            (p.framing, Spool::new(0))
        } else if mirroring.body {
            let body = p.down.share()?;
            if mirroring.most.is_some_and(|most| body.len() > most as u64) {
                return None;
            }
            (p.framing, body)
        } else {
            head.remove("content-length");
            (Framing::Empty, Spool::new(0))
        };
        head.remove("expect");
        let mirrors = mirroring.selected(number).collect();
        let (composite, append_forwarded_for) = (Arc::clone(composite), p.x.append_forwarded_for);
        let trace = traced::beside(p.x.trace.as_deref());
        Some(Self { head, framing, body, append_forwarded_for, composite, mirrors, trace })
    }

    /// Sends the copies, one after the other, in a task of its own.
    pub(super) fn send(mut self, worker: &Rc<Worker>, connection: &Connection) {
        let Some(place) = Place::take(worker, self.body.memory(), connection.entry.config.grace_timeout)
        else {
            worker.metrics.mirror_dropped(self.composite.label);
            return;
        };
        let tls = connection.tls.as_ref().map(|tls| tls.label);
        let connection = Connection {
            entry: Arc::clone(&connection.entry),
            client: connection.client,
            peer: Rc::clone(&connection.peer),
            trusted: connection.trusted,
            tls: None,
            slot: None,
            _open: None,
            _seat: None,
            private: OnceCell::new(),
        };
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            let mut body = std::mem::replace(&mut self.body, Spool::new(0));
            for mirror in &self.mirrors {
                body.rewind();
                let mut x = worker.exchange(&connection.peer);
                x.trace = traced::beside(self.trace.as_deref());
                let sent = self.send_one(&worker, &connection, tls, &mut x, *mirror, &mut body);
                if tokio::time::timeout(PATIENCE, sent).await.is_err() {
                    tracing::debug!("a mirror takes too long");
                }
                // Those on the way to the mirror alone.
                x.settle((0, 0), worker.now());
                traced::end_copy(&worker, &mut x);
                // A mirror may have mirrors of its own.
                super::compose::end(&worker, &connection, &mut x, false);
                worker.give_exchange(x);
            }
            drop(place);
        });
    }

    async fn send_one(
        &self,
        worker: &Rc<Worker>,
        connection: &Connection,
        tls: Option<LabelId>,
        x: &mut Exchange,
        mirror: usize,
        body: &mut Spool,
    ) {
        let Some((node, _)) = self.composite.mirrors().get(mirror) else { return };
        x.head.clone_from(&self.head);
        x.append_forwarded_for = self.append_forwarded_for;
        x.started = worker.now();
        let renewed = Renewed::default();
        let mut outcome = Outcome::new(worker, x);
        let mut nobody = Nobody { body };
        let mut down = Replay::new(&mut nobody);
        let patience = Patience { read_by: None, write_by: None };
        let mut p = Passage {
            worker,
            connection,
            x,
            down: &mut down,
            framing: self.framing,
            patience,
            outcome: &mut outcome,
            renewed: Some(&renewed),
        };
        let walk = Walk { router: "", reached: 0, root: Some(&self.composite) };
        let passed = walk.through(&mut p, node).await;
        p.outcome.status = p.x.response.status();
        if let Reply::Answer(mut answer) = passed.reply {
            let (delivered, bytes) = answer.deliver(&mut *p.down, patience).await;
            (p.outcome.response_bytes, p.outcome.request_bytes) = (bytes, answer.request.bytes);
            if delivered == Delivered::Whole {
                answer.release(worker, connection);
            }
        }
        record::mirrored(worker, tls, x, &outcome);
    }
}

/// A copy in progress, counted until dropped.
struct Place {
    worker: Rc<Worker>,
    bytes: usize,
}

impl Place {
    fn take(worker: &Rc<Worker>, bytes: usize, grace: Duration) -> Option<Self> {
        let Mirrors { running, bytes: held, grace: longest } = &worker.mirrors;
        if running.get() >= MOST || held.get() + bytes > MOST_BYTES {
            return None;
        }
        running.set(running.get() + 1);
        held.set(held.get() + bytes);
        longest.set(longest.get().max(grace));
        Some(Self { worker: Rc::clone(worker), bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Mirrors { running, bytes, .. } = &self.worker.mirrors;
        running.set(running.get() - 1);
        bytes.set(bytes.get() - self.bytes);
    }
}

/// Copies in progress on one worker.
#[derive(Default)]
pub(crate) struct Mirrors {
    running: Cell<usize>,
    bytes: Cell<usize>,
    /// The longest `graceTimeOut` of the entry points they came from.
    grace: Cell<Duration>,
}

impl Mirrors {
    /// Whether copies are in progress that have some time left, so long after draining began.
    pub(crate) fn wait_after(&self, elapsed: Duration) -> bool {
        self.running.get() > 0 && elapsed < self.grace.get()
    }
}

/// The client of a copy: it has all of the body, and takes every answer.
struct Nobody<'a> {
    body: &'a mut Spool,
}

impl Source for Nobody<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        let has_data = ready!(self.body.poll_read(cx))?;
        Poll::Ready(Ok(if has_data { Fill::Data } else { Fill::End }))
    }

    fn data(&self) -> &[u8] {
        self.body.data()
    }

    fn consume(&mut self, count: usize) {
        self.body.consume(count);
    }

    fn trailers(&self) -> Option<&Head> {
        None
    }
}

impl Sink for Nobody<'_> {
    fn poll_send(&mut self, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn finish(&mut self, _: Option<&Head>) -> io::Result<()> {
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Downstream for Nobody<'_> {
    fn respond(&mut self, _: &mut Head, _: Framing) -> io::Result<()> {
        Ok(())
    }

    fn inform(&mut self, _: &Head) -> io::Result<()> {
        Ok(())
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn tunnel(&mut self) -> Option<&mut H1> {
        None
    }

    fn abort(&mut self) {}

    fn poll_keep(&mut self, _: &mut Context<'_>, _: usize, most: u64) -> Poll<Result<bool, Unkept>> {
        Poll::Ready(Ok(self.body.len() <= most))
    }

    fn kept(&self) -> Option<u64> {
        Some(self.body.len())
    }

    fn share(&self) -> Option<Spool> {
        self.body.share()
    }

    fn rewind(&mut self) {
        self.body.rewind();
    }
}
