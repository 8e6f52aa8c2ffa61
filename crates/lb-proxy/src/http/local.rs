//! Answers Vigie gives by itself.

use std::borrow::Cow;
use std::time::Duration;

use lb_http1::Head;
use smallvec::SmallVec;

/// A whole small answer.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) status: u16,
    pub(crate) headers: SmallVec<[(&'static str, Cow<'static, str>); 2]>,
    pub(crate) body: Cow<'static, [u8]>,
}

impl Local {
    /// Status without a body.
    pub(crate) fn bare(status: u16) -> Self {
        Self { status, headers: SmallVec::new(), body: Cow::Borrowed(b"") }
    }

    /// Status with its standard text as body and no content type, as Traefik's own errors are.
    pub(crate) fn status_text(status: u16) -> Self {
        let text = if status == 499 { "Client Closed Request" } else { lb_http1::standard_reason(status) };
        Self { status, headers: SmallVec::new(), body: Cow::Borrowed(text.as_bytes()) }
    }

    /// Go's `http.Error`: text, line end, `nosniff`.
    pub(crate) fn plain(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let mut body = text.into().into_owned();
        body.push('\n');
        Self::bare(status)
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("X-Content-Type-Options", "nosniff")
            .body(body.into_bytes())
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Cow<'static, [u8]>>) -> Self {
        self.body = body.into();
        self
    }

    /// The head of this answer, its length included.
    pub(crate) fn write_head(&self, head: &mut Head) {
        head.clear();
        head.set_status(self.status);
        for (name, value) in &self.headers {
            head.append(name, value.as_bytes());
        }
        if self.status == 503 && !head.contains("retry-after") {
            // RFC 9110 section 15.6.4; who knows better says so.
            head.append("Retry-After", b"1");
        }
        if matches!(self.status, 408 | 421) {
            // RFC 9110 sections 15.5.9 and 15.5.20: it takes another connection. HTTP/2 and later leave the field out.
            head.set("Connection", b"close");
        }
        // RFC 9110 section 8.6: none in answers that never have a body.
        if self.status >= 200 && self.status != 204 && self.status != 304 {
            let mut digits = [0; 20];
            head.append("Content-Length", decimal(self.body.len() as u64, &mut digits));
        }
    }
}

/// `duration` for `Retry-After`, which counts whole seconds (RFC 9110 section 10.2.3): rounding down would
/// invite too early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// `number` in decimal, without allocating.
pub(crate) fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_503_says_when_to_come_back() {
        let retry_after = |local: Local| {
            let mut head = Head::new();
            local.write_head(&mut head);
            head.get_str("retry-after").map(str::to_owned)
        };
        assert_eq!(retry_after(Local::bare(503)).as_deref(), Some("1"));
        assert_eq!(retry_after(Local::plain(503, "full").with("Retry-After", "7")).as_deref(), Some("7"));
        assert_eq!(retry_after(Local::bare(502)), None);
        assert_eq!([1, 1000, 1001].map(|millis| whole_seconds(Duration::from_millis(millis))), [1, 1, 2]);
    }

    #[test]
    fn decimal_writes_every_length() {
        let mut digits = [0; 20];
        assert_eq!(decimal(0, &mut digits), b"0");
        assert_eq!(decimal(1024, &mut digits), b"1024");
        assert_eq!(decimal(u64::MAX, &mut digits), b"18446744073709551615");
    }
}
