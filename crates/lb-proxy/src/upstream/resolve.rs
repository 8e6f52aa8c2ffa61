//! Looks names up, so that one without an answer holds up nothing else.
//!
//! The system's resolver blocks a thread for as long as it waits, half a minute where name servers are silent. So
//! look-ups have threads of their own, of all workers and probes together. Whoever asks for a name that is being
//! looked up shares its answer, as in Go. Names that took long wait in a line of their own the next time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Threads at most. Chosen: as many as tokio has for all that blocks; Go takes 500.
const THREADS: usize = 512;
/// The same for names that took long: chosen.
const THREADS_WHEN_SLOW: usize = 128;
/// A look-up that takes longer was slow: chosen, a fifth of what the resolver gives a name server.
const SLOW: Duration = Duration::from_secs(1);
/// So many slow names are remembered. Chosen: more than a configuration has; redirects of probes can name any.
const MOST_SLOW: usize = 16 * 1024;

static RESOLVER: LazyLock<Arc<Resolver>> =
    LazyLock::new(|| Arc::new(Resolver { look_up: Box::new(system), names: Mutex::default() }));

/// The addresses of `host`, with `port`, in the system's order. Dropping the future takes the name out of the line,
/// unless others ask for it too or its turn has come.
///
/// # Errors
/// The system's.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = RESOLVER.addresses(host).await?;
    addresses.iter_mut().for_each(|address| address.set_port(port));
    Ok(addresses)
}

fn system(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;
type Answer = Result<Vec<SocketAddr>, Arc<io::Error>>;

struct Resolver {
    look_up: Box<LookUp>,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// Those that are looked up or wait for it.
    asked: HashMap<String, watch::Sender<Option<Answer>>>,
    slow: HashSet<String>,
    line: Line,
    slow_line: Line,
}

#[derive(Default)]
struct Line {
    threads: usize,
    waiting: VecDeque<String>,
}

impl Resolver {
    async fn addresses(self: &Arc<Self>, host: &str) -> io::Result<Vec<SocketAddr>> {
        let mut answer = self.ask(host);
        let answer = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
        match answer {
            Ok(Some(Ok(addresses))) => Ok(addresses),
            Ok(Some(Err(error))) => Err(io::Error::new(error.kind(), error.to_string())),
            // A look-up has panicked.
            Ok(None) | Err(_) => Err(io::Error::other("the look-up has failed")),
        }
    }

    fn ask(self: &Arc<Self>, host: &str) -> watch::Receiver<Option<Answer>> {
        let mut names = self.names.lock();
        if let Some(asked) = names.asked.get(host) {
            return asked.subscribe();
        }
        let (tell, answer) = watch::channel(None);
        names.asked.insert(host.to_owned(), tell);
        let slow = names.slow.contains(host);
        let line = names.line(slow);
        line.waiting.push_back(host.to_owned());
        if line.threads < if slow { THREADS_WHEN_SLOW } else { THREADS } {
            line.threads += 1;
            drop(names);
            let resolver = Arc::clone(self);
            let thread = thread::Builder::new().name("vigie-resolver".to_owned());
            if let Err(error) = thread.spawn(move || resolver.work(slow)) {
                self.give_up(host, slow, error);
            }
        }
        answer
    }

    /// No thread is to be had. Others that run will get to who else waits.
    fn give_up(&self, host: &str, slow: bool, error: io::Error) {
        let mut names = self.names.lock();
        let line = names.line(slow);
        line.threads -= 1;
        line.waiting.retain(|waiting| waiting != host);
        names.tell(host, Err(error));
    }

    fn work(&self, slow: bool) {
        loop {
            let Some(host) = self.names.lock().next(slow) else { return };
            let began = Instant::now();
            let answer = (self.look_up)(&host);
            let took = began.elapsed();
            let mut names = self.names.lock();
            if took <= SLOW {
                names.slow.remove(&host);
            } else if names.slow.len() < MOST_SLOW {
                names.slow.insert(host.clone());
            }
            names.tell(&host, answer);
        }
    }
}

impl Names {
    fn line(&mut self, slow: bool) -> &mut Line {
        if slow { &mut self.slow_line } else { &mut self.line }
    }

    /// The next name that somebody still asks for; `None`: the thread that asks is no longer needed.
    fn next(&mut self, slow: bool) -> Option<String> {
        while let Some(host) = self.line(slow).waiting.pop_front() {
            if self.asked.get(&host).is_some_and(|asked| asked.receiver_count() > 0) {
                return Some(host);
            }
            self.asked.remove(&host);
        }
        self.line(slow).threads -= 1;
        None
    }

    fn tell(&mut self, host: &str, answer: io::Result<Vec<SocketAddr>>) {
        if let Some(asked) = self.asked.remove(host) {
            asked.send_replace(Some(answer.map_err(Arc::new)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 7], 0))
    }

    fn resolver(
        look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Resolver> {
        Arc::new(Resolver { look_up: Box::new(look_up), names: Mutex::default() })
    }

    #[tokio::test]
    async fn whoever_asks_for_the_same_name_shares_one_look_up() {
        let (looked_up, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let (count, opened) = (Arc::clone(&looked_up), Arc::clone(&gate));
        let names = resolver(move |host| {
            count.fetch_add(1, Ordering::Relaxed);
            if host == "slow.test" {
                opened.wait();
            }
            Ok(vec![address()])
        });
        let answers: Vec<_> = (0..1000).map(|_| names.ask("slow.test")).collect();
        // Another name does not wait for it.
        assert_eq!(names.addresses("quick.test").await.unwrap(), [address()]);
        assert!(answers.iter().all(|answer| answer.borrow().is_none()));
        gate.wait();
        for mut answer in answers {
            let found = answer.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(found.unwrap().unwrap(), [address()]);
        }
        assert_eq!(looked_up.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn names_that_took_long_wait_for_each_other_and_nobody_for_them() {
        let names = resolver(|host| match host {
            "quick.test" => Ok(vec![address()]),
            _ => {
                thread::sleep(SLOW + Duration::from_millis(10));
                Err(io::Error::other("no name server answers"))
            }
        });
        let silent: Vec<String> = (0..THREADS_WHEN_SLOW * 2).map(|n| format!("{n}.silent.test")).collect();
        let ask_all = || silent.iter().map(|host| names.ask(host)).collect::<Vec<_>>();
        for mut answer in ask_all() {
            let found = answer.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(found.unwrap().unwrap_err().to_string(), "no name server answers");
        }
        let answers = ask_all();
        assert_eq!(names.names.lock().slow_line.threads, THREADS_WHEN_SLOW);
        let began = Instant::now();
        assert_eq!(names.addresses("quick.test").await.unwrap(), [address()]);
        assert!(began.elapsed() < SLOW);
        // What nobody waits for any more is not looked up.
        drop(answers);
        let mut again = names.ask(&silent[0]);
        let _ = again.wait_for(Option::is_some).await.unwrap();
        crate::upstream::dial::tests::until(|| names.names.lock().slow_line.threads == 0).await;
        assert!(names.names.lock().asked.is_empty());
        assert!(began.elapsed() < SLOW * 2);
    }
}
