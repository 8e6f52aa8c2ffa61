//! The media type of a body that nobody has named, by its first bytes: the WHATWG's MIME Sniffing Standard, as far as
//! Go's `http.DetectContentType` has it.

/// Bytes that are looked at.
pub const MOST_BYTES: usize = 512;

/// Letters in either case; a space or `>` has to follow.
const HTML: [&str; 17] = [
    "<!DOCTYPE HTML",
    "<HTML",
    "<HEAD",
    "<SCRIPT",
    "<IFRAME",
    "<H1",
    "<DIV",
    "<FONT",
    "<TABLE",
    "<A",
    "<STYLE",
    "<TITLE",
    "<B",
    "<BODY",
    "<BR",
    "<P",
    "<!--",
];

/// What a body begins with, `.` for any byte, in the order in which they are tried.
const SIGNATURES: [(&[u8], &str); 32] = [
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xFE\xFF..", "text/plain; charset=utf-16be"),
    (b"\xFF\xFE..", "text/plain; charset=utf-16le"),
    (b"\xEF\xBB\xBF.", "text/plain; charset=utf-8"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"RIFF....WEBPVP", "image/webp"),
    (b"\x89PNG\r\n\x1A\n", "image/png"),
    (b"\xFF\xD8\xFF", "image/jpeg"),
    (b"FORM....AIFF", "audio/aiff"),
    (b"ID3", "audio/mpeg"),
    (b"OggS\x00", "application/ogg"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"RIFF....AVI ", "video/avi"),
    (b"RIFF....WAVE", "audio/wave"),
    (MP4, "video/mp4"),
    (b"\x1A\x45\xDF\xA3", "video/webm"),
    (b"..................................LP", "application/vnd.ms-fontobject"),
    (b"\x00\x01\x00\x00", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1F\x8B\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1A\x07\x00", "application/x-rar-compressed"),
    (b"Rar!\x1A\x07\x01\x00", "application/x-rar-compressed"),
    (b"\x00asm", "application/wasm"),
];

const MP4: &[u8] = b"....ftyp....";

/// The type of a body that begins with `data`, of which [`MOST_BYTES`] count.
pub fn media_type(data: &[u8]) -> &'static str {
    let data = &data[..data.len().min(MOST_BYTES)];
    let text = data.trim_ascii_start();
    if HTML.iter().any(|tag| is_html(text, tag.as_bytes())) {
        return "text/html; charset=utf-8";
    }
    if text.starts_with(b"<?xml") {
        return "text/xml; charset=utf-8";
    }
    let found = SIGNATURES
        .iter()
        .find(|(signature, _)| begins_with(data, signature) && (*signature != MP4 || is_mp4(data)));
    if let Some((_, kind)) = found {
        return kind;
    }
    let is_binary = |byte: &u8| matches!(byte, 0..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    if text.iter().any(is_binary) { "application/octet-stream" } else { "text/plain; charset=utf-8" }
}

fn is_html(text: &[u8], tag: &[u8]) -> bool {
    text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag))
        && matches!(text.get(tag.len()), Some(b' ' | b'>'))
}

fn begins_with(data: &[u8], signature: &[u8]) -> bool {
    data.len() >= signature.len()
        && data.iter().zip(signature).all(|(byte, expected)| *expected == b'.' || byte == expected)
}

/// Section 6.2.1 of the standard: one of the brands in the first box begins with `mp4`.
fn is_mp4(data: &[u8]) -> bool {
    let Some(length) = data.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
        return false;
    };
    let brands = data.get(8..length).filter(|_| length.is_multiple_of(4));
    // The second place is the version.
    brands.is_some_and(|brands| {
        brands.chunks(4).enumerate().any(|(at, brand)| at != 1 && brand.starts_with(b"mp4"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Traefik 3.7 (Go 1.26) names them.
    #[test]
    fn bodies_are_named_as_by_go() {
        for (body, expected) in [
            (&b"hello"[..], "text/plain; charset=utf-8"),
            (b"", "text/plain; charset=utf-8"),
            (b"{\"a\":1}", "text/plain; charset=utf-8"),
            (b"a\x1bb", "text/plain; charset=utf-8"),
            (b"\0\x01", "application/octet-stream"),
            (b" \n<!doctype html>", "text/html; charset=utf-8"),
            (b"<p>", "text/html; charset=utf-8"),
            (b"<pre>", "text/plain; charset=utf-8"),
            (b"<!--x", "text/plain; charset=utf-8"),
            (b"\t<?xml a", "text/xml; charset=utf-8"),
            (b"%PDF-", "application/pdf"),
            (b"\xff\xfe12", "text/plain; charset=utf-16le"),
            (b"\xff\xfe1", "text/plain; charset=utf-8"),
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"RIFFxxxxWEBPVP", "image/webp"),
            (b"RIFFxxxxWAVE", "audio/wave"),
            (b"\0\0\0\x18ftypmp42....mp42isom", "video/mp4"),
            (b"\0\0\0\x10ftypxxxxmp42isom", "application/octet-stream"),
            (b"\0\0\0\x04ftypmp42....mp42isom", "application/octet-stream"),
            (b"\0\0\0\x80ftypmp42....mp42isom", "application/octet-stream"),
            (b"OTTO", "font/otf"),
            (b"PK\x03\x04", "application/zip"),
            (b"\0asm", "application/wasm"),
        ] {
            assert_eq!(media_type(body), expected, "{}", String::from_utf8_lossy(body));
        }
        let mut long = vec![b'x'; MOST_BYTES];
        long.push(0);
        assert_eq!(media_type(&long), "text/plain; charset=utf-8");
        assert_eq!(media_type(&long[1..]), "application/octet-stream");
    }
}
