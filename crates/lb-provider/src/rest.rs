//! The provider `rest`: a configuration that somebody sends.
//!
//! What was sent last is the whole of it. One with a mistake changes nothing, and whoever sent it is told all of them.

use lb_config::{Context, Loaded, Problem, Problems, parse_answer};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::remote::Reading;

/// As problems name it.
const PLACE: &str = "PUT /api/providers/rest";
/// Readings on their way to the listener; who sends more waits.
const READINGS: usize = 4;

/// Takes configurations in.
#[derive(Debug)]
pub struct Rest {
    context: Context,
    deliver: mpsc::Sender<Reading>,
    /// What is in force. Locked while it is handed on, so that the last one is the same here and there.
    last: Mutex<Option<String>>,
}

impl Rest {
    /// The first reading is the empty configuration: nothing was sent yet.
    ///
    /// # Errors
    /// Never with a context that fits an empty configuration.
    pub fn open(context: Context) -> Result<(Self, Loaded, mpsc::Receiver<Reading>), Problems> {
        let first = parse_answer("rest", PLACE, b"{}", &context)?;
        let (deliver, readings) = mpsc::channel(READINGS);
        Ok((Self { context, deliver, last: Mutex::new(None) }, first, readings))
    }

    /// Takes in a configuration as JSON. Not to be called from a runtime's thread: it may wait for its turn.
    ///
    /// # Errors
    /// All that is wrong with it, and then it is not used.
    pub fn put(&self, body: &[u8]) -> Result<Value, Problems> {
        let mut last = self.last.lock();
        let (value, loaded) = self.read(body)?;
        if self.deliver.blocking_send(Ok(loaded)).is_ok() {
            *last = Some(value.to_string());
        }
        Ok(value)
    }

    /// What was sent last, for the process that follows this one.
    pub fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }

    /// Goes on with what was sent to the process before this one.
    ///
    /// # Errors
    /// What this version finds wrong with it.
    pub fn restore(&self, body: String) -> Result<Loaded, Problems> {
        let (_, loaded) = self.read(body.as_bytes())?;
        *self.last.lock() = Some(body);
        Ok(loaded)
    }

    fn read(&self, body: &[u8]) -> Result<(Value, Loaded), Problems> {
        let value: Value = serde_json::from_slice(body).map_err(|error| problem(&error))?;
        let full = without_empty(&value).map(|value| value.to_string().into_bytes());
        let text = full.as_deref().unwrap_or(body);
        Ok((value, parse_answer("rest", PLACE, text, &self.context)?.strict()?))
    }
}

/// Without sections and kinds that have nothing in them, and the `clientAuth` of TLS options, which programs write (Go's
/// encoder leaves out no such block) and files may not have; `None` where there are none, so that places of problems stay those of what was sent.
fn without_empty(value: &Value) -> Option<Value> {
    fn is_empty(value: &Value) -> bool {
        value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
    }
    let mut pruned = value.clone();
    for section in pruned.as_object_mut()?.values_mut().filter_map(Value::as_object_mut) {
        section.retain(|_, kind| !is_empty(kind));
    }
    let options = pruned.pointer_mut("/tls/options").and_then(Value::as_object_mut);
    for options in options.into_iter().flat_map(|all| all.values_mut()).filter_map(Value::as_object_mut) {
        options.retain(|key, block| key != "clientAuth" || !is_empty(block));
    }
    let known = ["http", "tcp", "udp", "tls"];
    pruned.as_object_mut()?.retain(|name, section| !known.contains(&name.as_str()) || !is_empty(section));
    (pruned != *value).then_some(pruned)
}

fn problem(error: &serde_json::Error) -> Problems {
    Problem {
        severity: lb_config::Severity::Error,
        scope: lb_config::Scope::File,
        file: PLACE.to_owned(),
        line: u32::try_from(error.line()).unwrap_or(0),
        column: u32::try_from(error.column()).unwrap_or(0),
        key: String::new(),
        message: format!("this is no JSON: {error}"),
        hint: None,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_last_is_the_whole_and_mistakes_change_nothing() {
        let (rest, first, mut readings) = Rest::open(Context::default()).unwrap();
        assert_eq!(first.config, lb_config::Config::default());
        let router = |name: &str| {
            format!(
                r#"{{"http": {{"routers": {{"{name}": {{"rule": "Path(`/`)", "service": "noop@internal"}}}}}}}}"#
            )
        };
        rest.put(router("a").as_bytes()).unwrap();
        assert!(readings.try_recv().unwrap().unwrap().config.routers.contains_key("a@rest"));
        for (body, expected) in [
            ("http: {}", "PUT /api/providers/rest:1:"),
            ("", "this is no JSON"),
            ("{\"htp\": {}}", "none of the sections"),
            (&*router("a").replace("Path", "Pth"), "http.routers.a.rule"),
            (&*router("a").replace("noop@", "nop@"), "http.routers.a.service"),
        ] {
            let told = rest.put(body.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(expected), "{body}: {told}");
        }
        assert!(readings.try_recv().is_err());
        for empty in
            ["{}", "{\"http\": {}}", "{\"http\": {\"routers\": {}, \"services\": null}, \"tls\": {}}"]
        {
            rest.put(empty.as_bytes()).unwrap();
            assert_eq!(readings.try_recv().unwrap().unwrap().config, lb_config::Config::default(), "{empty}");
        }
        rest.put(router("a").replace("}}}}", "}}, \"services\": {}}}").as_bytes()).unwrap();
        assert!(rest.last().unwrap().contains("\"a\""));
        let options = r#"{"tls": {"options": {"o": {"minVersion": "VersionTLS13", "clientAuth": {}}}}}"#;
        rest.put(options.as_bytes()).unwrap();
        rest.put(router("a").as_bytes()).unwrap();
        let (next, ..) = Rest::open(Context::default()).unwrap();
        assert!(next.restore(rest.last().unwrap()).unwrap().config.routers.contains_key("a@rest"));
        assert_eq!(next.last(), rest.last());
    }
}
