//! What somebody who is to help needs to see, in one archive: `/api/support-dump`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::response::gzip;
use crate::{Response, View, probes};

/// Traefik's three files, and what `/health` complains of.
pub(super) fn dump(view: &View, version: &Value, runtime: &Value) -> Response {
    let files = [
        ("version.json", &lower_case(version)),
        ("static-config.json", &view.static_config.written),
        ("runtime-config.json", runtime),
        ("configuration.json", &probes::in_all(view)),
    ];
    let files = files.map(|(name, content)| (name, content.to_string()));
    match gzip(&tar(&files, view.now)) {
        Ok(archive) => Response::new(200, archive)
            .with("Content-Type", "application/gzip")
            .with("Content-Disposition", "attachment; filename=support-dump.tar.gz"),
        Err(error) => Response::error(500, &format!("the archive cannot be made: {error}")),
    }
}

/// Keys begin with a small letter here, unlike those of `/api/version`.
fn lower_case(version: &Value) -> Value {
    let entries = version.as_object().into_iter().flatten();
    let renamed = entries.map(|(key, value)| (key[..1].to_ascii_lowercase() + &key[1..], value.clone()));
    renamed.collect::<Map<_, _>>().into()
}

/// The unit of the format.
const BLOCK: usize = 512;

/// Files in the `ustar` interchange format (IEEE Std 1003.1, `pax`); names have at most 100 bytes.
fn tar(files: &[(&str, String)], now: SystemTime) -> Vec<u8> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000600");
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, &format!("{seconds:011o}"));
        // Blank while the sum is made.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(header);
        archive.extend(content.as_bytes());
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks are the end.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}
