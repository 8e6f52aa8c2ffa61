//! Frees what is large on a thread of its own.

/// Objects from which on a thread is worth its start: chosen, freeing so many takes as long.
const MANY: usize = 500;

/// Drops `remains`, which consist of about `size` objects, without keeping the caller if they are many.
pub(super) fn free<T: Send + 'static>(remains: T, size: usize) {
    if size >= MANY {
        // Where no thread is to be had, the error drops them here.
        let _ = std::thread::Builder::new().name("vigie-free".to_owned()).spawn(move || drop(remains));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use super::*;

    struct Probe(Sender<thread::ThreadId>);

    impl Drop for Probe {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    #[test]
    fn much_is_freed_by_another_thread_and_little_by_this_one() {
        let (sender, freed) = channel();
        free(Probe(sender.clone()), MANY - 1);
        assert_eq!(freed.recv().unwrap(), thread::current().id());
        free(Probe(sender), MANY);
        assert_ne!(freed.recv().unwrap(), thread::current().id());
    }
}
