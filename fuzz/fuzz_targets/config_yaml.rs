//! YAML as a static and as a dynamic file.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../config.rs"]
mod config;

fuzz_target!(|text: &str| config::check("fuzz.yml", text));
