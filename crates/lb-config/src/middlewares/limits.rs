//! Middlewares that refuse requests: `rateLimit`, `inFlightReq`, `ipAllowList`.

use std::time::Duration;

use crate::decode::{Block, Enabled, Field};
use crate::dynamic::{InFlightReq, IpAllowList, IpStrategy, Middleware, RateLimit, SourceCriterion};
use crate::net::{is_token, networks};
use crate::problem::quoted;

/// `period` when absent or 0 (reference, rateLimit).
const PERIOD: Duration = Duration::from_secs(1);

pub(super) fn rate_limit(block: &Block<'_>) -> Option<Middleware> {
    let average = block.take("average").and_then(|field| field.u64(0)).unwrap_or(0);
    let period = block.take("period").and_then(|field| field.limit()).flatten().unwrap_or(PERIOD);
    let burst = block.take("burst").and_then(|field| field.integer(i64::MIN..=i64::MAX)).unwrap_or(1);
    let source = block.take("sourceCriterion").and_then(|field| source(&field));
    let redis = block.take("redis");
    // One that cannot work must not leave a limit that is not shared.
    let redis = redis.as_ref().and_then(super::redis::redis).map(Box::new);
    Some(Middleware::RateLimit(RateLimit {
        average,
        period,
        burst: u64::try_from(burst.max(1)).unwrap_or(1),
        source: source.unwrap_or_else(|| SourceCriterion::Ip(IpStrategy::default())),
        redis,
    }))
}

pub(super) fn in_flight_req(block: &Block<'_>) -> Option<Middleware> {
    let field = block.take("amount");
    let said = field.as_ref().map_or(Some(0), |field| field.u64(0));
    if said == Some(0) {
        let hint = "write `amount`, the most requests at a time".to_owned();
        block.warn("an `amount` of 0 refuses every request".to_owned(), Some(hint));
    }
    let source = block.take("sourceCriterion").and_then(|field| source(&field));
    let amount = said.unwrap_or(0);
    Some(Middleware::InFlightReq(InFlightReq { amount, source: source.unwrap_or(SourceCriterion::Host) }))
}

pub(super) fn ip_allow_list(block: &Block<'_>) -> Option<Middleware> {
    // Statuses that end an exchange and may carry the text that goes with them.
    let status = block.take("rejectStatusCode").and_then(|field| field.u16(200, 599));
    allow_list(block, status, false)
}

/// The older name, without a choice of status.
pub(super) fn ip_white_list(block: &Block<'_>) -> Option<Middleware> {
    let message = "`ipWhiteList` is the old name of `ipAllowList`".to_owned();
    block.warn(message, Some("rename it".to_owned()));
    allow_list(block, None, true)
}

fn allow_list(block: &Block<'_>, status: Option<u16>, is_white_list: bool) -> Option<Middleware> {
    let range = block.require("sourceRange", "list the networks that may pass");
    let source_range = range.as_ref().map(networks).unwrap_or_default();
    if let Some(range) = range
        && source_range.is_empty()
        && !block.report.is_current_broken()
    {
        range.error("the list is empty".to_owned(), Some("list the networks that may pass".to_owned()));
    }
    let strategy = block.take("ipStrategy").and_then(|field| ip_strategy(&field)).unwrap_or_default();
    Some(Middleware::IpAllowList(IpAllowList {
        source_range,
        strategy,
        reject_status_code: status.unwrap_or(403),
        is_white_list,
    }))
}

/// `None` when nothing in it says anything, which leaves the middleware its default.
fn source(field: &Field<'_>) -> Option<SourceCriterion> {
    let block = field.block()?;
    let ip = block.take("ipStrategy").and_then(|field| ip_strategy(&field)).map(SourceCriterion::Ip);
    let header_field = block.take("requestHeaderName");
    let header = header_field.as_ref().and_then(|field| field.string()).filter(|name| !name.is_empty());
    if let (Some(field), Some(name)) = (&header_field, &header)
        && !is_token(name)
    {
        field.error(format!("{} is not a header name", quoted(name)), None);
    }
    let header = header.map(SourceCriterion::Header);
    let host = block.take("requestHost").and_then(|field| field.boolean()).unwrap_or(false);
    let host = host.then_some(SourceCriterion::Host);
    let mut named: Vec<SourceCriterion> = [ip, header, host].into_iter().flatten().collect();
    if named.len() > 1 {
        let message = "`ipStrategy`, `requestHeaderName` and `requestHost` exclude each other".to_owned();
        block.error(message, Some("keep one of them".to_owned()));
    }
    block.finish();
    named.pop()
}

fn ip_strategy(field: &Field<'_>) -> Option<IpStrategy> {
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(IpStrategy::default()),
        Enabled::With(block) => block,
    };
    let strategy = IpStrategy {
        depth: block.take("depth").and_then(|field| field.usize(0)).unwrap_or(0),
        excluded_ips: block.take("excludedIPs").map(|field| networks(&field)).unwrap_or_default(),
        ipv6_subnet: block
            .take("ipv6Subnet")
            .and_then(|field| field.u16(1, 128))
            .and_then(|bits| u8::try_from(bits).ok()),
    };
    if strategy.depth > 0 && !strategy.excluded_ips.is_empty() {
        let message = "`depth` wins: `excludedIPs` has no effect".to_owned();
        block.warn(message, Some("keep one of them".to_owned()));
    }
    block.finish();
    Some(strategy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    fn by_ip() -> SourceCriterion {
        SourceCriterion::Ip(IpStrategy::default())
    }

    #[test]
    fn rate_limits() {
        let limit = |average, period, burst, source| {
            Ok(Middleware::RateLimit(RateLimit {
                average,
                period: Duration::from_secs(period),
                burst,
                source,
                redis: None,
            }))
        };
        for (text, expected) in [
            ("{average: 100, burst: 50}", limit(100, 1, 50, by_ip())),
            ("{average: 6, period: 1m, burst: 0}", limit(6, 60, 1, by_ip())),
            ("{average: 1, period: 0}", limit(1, 1, 1, by_ip())),
            ("{burst: 5, sourceCriterion: {requestHost: true}}", limit(0, 1, 5, SourceCriterion::Host)),
            ("{average: 1, sourceCriterion: {requestHost: false}}", limit(1, 1, 1, by_ip())),
            (
                "{average: 1, sourceCriterion: {requestHeaderName: X-Key}}",
                limit(1, 1, 1, SourceCriterion::Header("X-Key".to_owned())),
            ),
            ("{average: 1, sourceCriterion: {ipStrategy: {}}}", limit(1, 1, 1, by_ip())),
        ] {
            assert_eq!(middleware(&format!("{{rateLimit: {text}}}")), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            ("{rateLimit: {average: -1}}", "rateLimit.average: -1 is out of range"),
            ("{rateLimit: {period: -1s}}", "rateLimit.period: a length of time cannot be negative"),
            (
                "{rateLimit: {average: 1, sourceCriterion: {requestHost: true, ipStrategy: {depth: 1}}}}",
                "rateLimit.sourceCriterion: `ipStrategy`, `requestHeaderName` and `requestHost` exclude each other",
            ),
            (
                "{rateLimit: {sourceCriterion: {ipStrategy: {ipv6Subnet: 129}}}}",
                "rateLimit.sourceCriterion.ipStrategy.ipv6Subnet: 129 is out of range",
            ),
            ("{inFlightReq: {amount: 0}}", "~inFlightReq: an `amount` of 0 refuses every request"),
            ("{inFlightReq: {amount: -1}}", "inFlightReq.amount: -1 is out of range"),
            (
                "{ipAllowList: {sourceRange: [{a: b}]}}",
                "ipAllowList.sourceRange[0]: expected a single value, found a map",
            ),
            ("{ipAllowList: {sourceRange: []}}", "ipAllowList.sourceRange: the list is empty"),
            ("{ipAllowList: {rejectStatusCode: 404}}", "ipAllowList: `sourceRange` is missing"),
            (
                "{ipAllowList: {sourceRange: [10.0.0.0/33]}}",
                "ipAllowList.sourceRange[0]: `10.0.0.0/33` is not a network",
            ),
            (
                "{ipWhiteList: {sourceRange: ::1}}",
                "~ipWhiteList: `ipWhiteList` is the old name of `ipAllowList`",
            ),
        ] {
            assert_eq!(middleware_problems(text), [expected], "{text}");
        }
    }

    #[test]
    fn networks_lose_their_host_bits() {
        let Ok(Middleware::IpAllowList(list)) =
            middleware("{ipAllowList: {sourceRange: '10.1.2.3/8, ::1', ipStrategy: {depth: 2}}}")
        else {
            panic!("no list")
        };
        assert_eq!(
            list.source_range.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "::1/128"]
        );
        assert_eq!((list.strategy.depth, list.reject_status_code), (2, 403));
    }
}
