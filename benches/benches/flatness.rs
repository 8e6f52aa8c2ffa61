//! Whether matching gets slower as routers are added, on a machine that does other things as well.
//!
//! Criterion measures one number of routers after the other; what the machine does meanwhile changes more
//! than their number does. Here all take turns of some microseconds. What is printed is the least time of
//! each, the ratio of these, and the median of the ratios turn by turn, for growing numbers of distinct requests. Before it
//! counts, each index and its requests are brought into the caches, as far as they fit.

use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use lb_core::route::RouteIndex;
use routers::Asked;

mod routers;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// From what fits in a first-level cache to what fits in none.
const DISTINCT: [usize; 6] = [32, 128, 512, 1_024, 4_096, 131_072];

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "| nanoseconds | 10 routers | 1,000 | 100,000 | 100,000 / 10 | median |")?;
    writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
    for (name, shape) in routers::SHAPES {
        let indexes = routers::COUNTS.map(|count| (count, routers::index(shape, count)));
        for distinct in DISTINCT {
            let mut subjects: Vec<_> = indexes
                .iter()
                .map(|(count, index)| Subject::new(index, routers::requests(shape, *count, distinct)))
                .collect();
            let (turns, to_warm_up, look_ups) = match distinct {
                ..1_024 => (500, distinct, 40 * distinct),
                1_024..10_000 => (200, 2 * distinct, 4 * distinct),
                _ => (50, 0, distinct),
            };
            let mut ratios = Vec::new();
            for _ in 0..turns {
                let times = subjects.iter_mut().map(|subject| {
                    subject.turn(to_warm_up);
                    let time = subject.turn(look_ups);
                    subject.least = subject.least.min(time);
                    time
                });
                let times: Vec<_> = times.collect();
                ratios.push(times[times.len() - 1] / times[0]);
            }
            ratios.sort_by(f64::total_cmp);
            write!(out, "| match, {name}, {distinct} requests |")?;
            for subject in &subjects {
                write!(out, " {:.1} |", subject.least)?;
            }
            let least = subjects[subjects.len() - 1].least / subjects[0].least;
            writeln!(out, " {least:.2} | {:.2} |", ratios[turns / 2])?;
        }
    }
    Ok(())
}

struct Subject<'a> {
    index: &'a RouteIndex<usize>,
    requests: Vec<Asked>,
    next: usize,
    /// Nanoseconds per look-up in the fastest turn.
    least: f64,
}

impl<'a> Subject<'a> {
    fn new(index: &'a RouteIndex<usize>, requests: Vec<Asked>) -> Self {
        Self { index, requests, next: 0, least: f64::INFINITY }
    }

    /// Nanoseconds per look-up.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn turn(&mut self, look_ups: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..look_ups {
            self.next = if self.next + 1 == self.requests.len() { 0 } else { self.next + 1 };
            black_box(self.index.find(black_box(&self.requests[self.next])).map(std::ptr::from_ref));
        }
        start.elapsed().as_secs_f64() * 1e9 / look_ups as f64
    }
}
