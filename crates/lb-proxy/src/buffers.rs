//! The buffers of one worker, lent to connections while bytes move and taken back when they idle.

use std::cell::{Cell, RefCell};

/// A first read: most requests and answers fit. Chosen.
pub(crate) const SMALL: usize = 16 * 1024;
/// Large bodies: fewer system calls per byte. Chosen by measurement of 1 MiB downloads.
pub(crate) const LARGE: usize = 256 * 1024;
/// So many large buffers are lent at once, and small ones beyond: thousands of clients that read slowly
/// must not hold gigabytes. Chosen: 16 MiB per worker.
const MOST_LARGE: usize = 64;
/// How many buffers of a size a worker keeps for later.
const KEEP_SMALL: usize = 256;
const KEEP_LARGE: usize = 16;
const KEEP_OUTPUT: usize = 256;

/// Input buffers are fully initialised (their length is their capacity); output buffers are empty.
#[derive(Default)]
pub(crate) struct Buffers {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    large_lent: Cell<usize>,
    output: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn input(&self) -> Vec<u8> {
        self.small.borrow_mut().pop().unwrap_or_else(|| vec![0; SMALL])
    }

    /// A large one while there are any, else a small one.
    pub(crate) fn large_input(&self) -> Vec<u8> {
        if self.large_lent.get() == MOST_LARGE {
            return self.input();
        }
        self.large_lent.set(self.large_lent.get() + 1);
        self.large.borrow_mut().pop().unwrap_or_else(|| vec![0; LARGE])
    }

    pub(crate) fn output(&self) -> Vec<u8> {
        self.output.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(4096))
    }

    /// Takes an input buffer back; odd sizes (grown for a large head) are freed.
    pub(crate) fn give_input(&self, buffer: Vec<u8>) {
        match buffer.len() {
            SMALL => keep(&self.small, buffer, KEEP_SMALL),
            LARGE => {
                self.large_lent.set(self.large_lent.get().saturating_sub(1));
                keep(&self.large, buffer, KEEP_LARGE);
            }
            _ => {}
        }
    }

    pub(crate) fn give_output(&self, mut buffer: Vec<u8>) {
        if (1..=LARGE).contains(&buffer.capacity()) {
            buffer.clear();
            keep(&self.output, buffer, KEEP_OUTPUT);
        }
    }
}

fn keep(pool: &RefCell<Vec<Vec<u8>>>, buffer: Vec<u8>, most: usize) {
    let mut pool = pool.borrow_mut();
    if pool.len() < most {
        pool.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_run_out_and_come_back() {
        let buffers = Buffers::default();
        let mut lent: Vec<_> = (0..MOST_LARGE).map(|_| buffers.large_input()).collect();
        assert!(lent.iter().all(|buffer| buffer.len() == LARGE));
        assert_eq!(buffers.large_input().len(), SMALL);
        buffers.give_input(lent.remove(0));
        assert_eq!(buffers.large_input().len(), LARGE);
        assert_eq!(buffers.large_input().len(), SMALL);
    }
}
