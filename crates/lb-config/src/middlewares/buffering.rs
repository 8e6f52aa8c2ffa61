//! `buffering`: bodies that are read to their end before they go on.

use lb_core::resend::Condition;

use crate::decode::Block;
use crate::dynamic::{BodyLimits, Buffering, Middleware};

/// Default of the reference, buffering.
const MEM_BODY_BYTES: usize = 1024 * 1024;

pub(super) fn buffering(block: &Block<'_>) -> Option<Middleware> {
    let limits = |max, mem| BodyLimits {
        max_bytes: block.take(max).and_then(|field| field.u64(0)).filter(|max| *max > 0),
        mem_bytes: (block.take(mem).and_then(|field| field.usize(0)))
            .filter(|mem| *mem > 0)
            .unwrap_or(MEM_BODY_BYTES),
    };
    let request = limits("maxRequestBodyBytes", "memRequestBodyBytes");
    let response = limits("maxResponseBodyBytes", "memResponseBodyBytes");
    let retry = block.take_word("retryExpression").and_then(|field| field.text()).and_then(|text| {
        let parsed = Condition::parse(text.value);
        parsed.map_err(|error| text.error_at(error.at, error.message, error.hint)).ok()
    });
    Some(Middleware::Buffering(Buffering { request, response, retry }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    #[test]
    fn buffering_has_defaults() {
        let of = |text: &str| match middleware(&format!("{{buffering: {text}}}")) {
            Ok(Middleware::Buffering(buffering)) => buffering,
            other => panic!("{text}: {other:?}"),
        };
        let limits = |max_bytes, mem_bytes| BodyLimits { max_bytes, mem_bytes };
        let zeros = of("{maxRequestBodyBytes: 0, memResponseBodyBytes: 0, retryExpression: ''}");
        assert_eq!((zeros.request, zeros.response), (limits(None, 1 << 20), limits(None, 1 << 20)));
        assert_eq!(zeros.retry, None);
        let all = of(
            "{maxRequestBodyBytes: 1, memRequestBodyBytes: 2, maxResponseBodyBytes: 3, memResponseBodyBytes: 4, \
             retryExpression: 'IsNetworkError() && Attempts() < 3'}",
        );
        assert_eq!((all.request, all.response), (limits(Some(1), 2), limits(Some(3), 4)));
        assert_eq!(all.retry.unwrap().as_str(), "IsNetworkError() && Attempts() < 3");
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            ("{buffering: {}}", "buffering: cannot be a standalone element: `{}` is empty"),
            ("{buffering: {maxRequestBodyBytes: -1}}", "buffering.maxRequestBodyBytes: -1 is out of range"),
            (
                "{buffering: {retryExpression: 'IsNetworkErorr()'}}",
                "buffering.retryExpression: unknown function `IsNetworkErorr`",
            ),
        ] {
            assert_eq!(middleware_problems(text), [expected], "{text}");
        }
    }
}
