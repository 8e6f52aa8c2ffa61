//! The answers, a file for each part of the API.

mod entry_points;
mod faults;
mod lists;
mod middlewares;
mod overview;
mod pages;
mod probes;
mod routers;
mod services;
mod tcp;
mod udp;

use serde_json::Value;

use crate::Response;

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

fn text(response: &Response) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|object| object["name"].as_str().unwrap()).collect()
}

#[track_caller]
fn assert_has(value: &Value, expected: &[(&str, Value)]) {
    for (pointer, expected) in expected {
        assert_eq!(value.pointer(pointer), Some(expected), "{pointer} of {value:#}");
    }
}
