//! What leaves the process, as those get it who receive it.

mod collector;
mod lines;
mod logs;
mod metrics;
mod middlewares;
mod secure;
mod traces;
mod trouble;
