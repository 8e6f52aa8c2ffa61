//! What leaves the process: spans, for now, as a receiver of OTLP gets them.

mod collector;
mod traces;
mod trouble;
