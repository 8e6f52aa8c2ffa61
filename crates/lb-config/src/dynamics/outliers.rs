//! `loadBalancer.slowStart`, `outlierDetection` and `panicThreshold`: extensions, named as in Envoy.

use std::num::NonZeroU32;

use crate::decode::{Block, Enabled, Field};
use crate::duration::show;
use crate::dynamic::{OutlierDetection, SlowStart};

/// The word for a kind of failure that ejects nobody.
const OFF: &str = "off";

pub(super) fn slow_start(field: &Field<'_>) -> Option<SlowStart> {
    let default = SlowStart::default();
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(default),
        Enabled::With(block) => block,
    };
    let duration = block.take("duration").and_then(|field| field.positive_duration());
    // Beyond these the curve is as good as a step.
    let aggression = block.take("aggression").and_then(|field| field.float(0.1..=10.0));
    let min_weight_percent = block.take("minWeightPercent").and_then(|field| percent(&field, 1));
    block.finish();
    Some(SlowStart {
        duration: duration.unwrap_or(default.duration),
        aggression: aggression.unwrap_or(default.aggression),
        min_weight_percent: min_weight_percent.unwrap_or(default.min_weight_percent),
    })
}

pub(super) fn detection(field: &Field<'_>) -> Option<OutlierDetection> {
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(OutlierDetection::default()),
        Enabled::With(block) => block,
    };
    let detection = read(&block);
    block.finish();
    Some(detection)
}

fn read(block: &Block<'_>) -> OutlierDetection {
    let default = OutlierDetection::default();
    let consecutive_5xx =
        block.take("consecutive5xx").and_then(|field| in_a_row(&field)).unwrap_or(default.consecutive_5xx);
    let consecutive_gateway_failure = block
        .take("consecutiveGatewayFailure")
        .and_then(|field| in_a_row(&field))
        .unwrap_or(default.consecutive_gateway_failure);
    if consecutive_5xx.or(consecutive_gateway_failure).is_none() {
        block.warn(
            "no failure ejects a server".to_owned(),
            Some("give `consecutive5xx` or `consecutiveGatewayFailure` a number".to_owned()),
        );
    }
    let duration = |key| block.take(key).and_then(|field| field.positive_duration());
    let interval = duration("interval").unwrap_or(default.interval);
    let base_ejection_time = duration("baseEjectionTime").unwrap_or(default.base_ejection_time);
    let longest = block.take("maxEjectionTime");
    let max_ejection_time = longest
        .as_ref()
        .and_then(|field| field.positive_duration())
        .unwrap_or(default.max_ejection_time.max(base_ejection_time));
    if let Some(field) = longest
        && max_ejection_time < base_ejection_time
    {
        let (max, base) = (show(max_ejection_time), show(base_ejection_time));
        let hint = "lower `baseEjectionTime` or raise this".to_owned();
        field.warn(format!("{max} is shorter than the `baseEjectionTime` of {base}"), Some(hint));
    }
    OutlierDetection {
        consecutive_5xx,
        consecutive_gateway_failure,
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_percent: block
            .take("maxEjectionPercent")
            .and_then(|field| percent(&field, 1))
            .unwrap_or(default.max_ejection_percent),
    }
}

/// A number of failures, or `off`, which is `Some(None)`.
fn in_a_row(field: &Field<'_>) -> Option<Option<NonZeroU32>> {
    if field.text()?.value == OFF {
        return Some(None);
    }
    field.u32(1).map(NonZeroU32::new)
}

pub(super) fn percent(field: &Field<'_>, low: i64) -> Option<u8> {
    field.integer(low..=100).and_then(|percent| u8::try_from(percent).ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dynamic::Service;
    use crate::testing::{load_balancer, load_balancer_problems};

    fn read(keys: &str) -> Service {
        load_balancer(&format!("{{servers: [], {keys}}}")).unwrap()
    }

    #[test]
    fn blocks_are_switched_on_with_defaults() {
        for (on, off) in [("true", "false"), ("{}", "false")] {
            let service = read(&format!("slowStart: {on}, outlierDetection: {on}"));
            assert_eq!(service.slow_start, Some(SlowStart::default()));
            assert_eq!(service.outlier_detection, Some(OutlierDetection::default()));
            let service = read(&format!("slowStart: {off}, outlierDetection: {off}"));
            assert_eq!((service.slow_start, service.outlier_detection), (None, None));
        }
    }

    #[test]
    fn every_key_is_read() {
        let service = read(
            "slowStart: {duration: 1m, aggression: 2.5, minWeightPercent: 5}, panicThreshold: 50, \
             outlierDetection: {consecutive5xx: 7, consecutiveGatewayFailure: 3, interval: 20s, \
             baseEjectionTime: 5s, maxEjectionTime: 1m, maxEjectionPercent: 50}",
        );
        let slow_start =
            SlowStart { duration: Duration::from_secs(60), aggression: 2.5, min_weight_percent: 5 };
        assert_eq!((service.slow_start, service.panic_threshold), (Some(slow_start), 50));
        let detection = OutlierDetection {
            consecutive_5xx: NonZeroU32::new(7),
            consecutive_gateway_failure: NonZeroU32::new(3),
            interval: Duration::from_secs(20),
            base_ejection_time: Duration::from_secs(5),
            max_ejection_time: Duration::from_secs(60),
            max_ejection_percent: 50,
        };
        assert_eq!(service.outlier_detection, Some(detection));
        let gateway = read("outlierDetection: {consecutive5xx: off, consecutiveGatewayFailure: 3}");
        assert_eq!(gateway.outlier_detection.unwrap().consecutive_5xx, None);
        let long = read("outlierDetection: {baseEjectionTime: 10m}").outlier_detection.unwrap();
        assert_eq!(long.max_ejection_time, Duration::from_secs(600));
    }

    #[test]
    fn what_is_told() {
        for (keys, expected) in [
            ("slowStart: 30s", "slowStart: expected a map or `true`, found `30s`"),
            ("slowStart: {duration: 0}", "slowStart.duration: must be longer than 0"),
            ("slowStart: {aggression: 0}", "slowStart.aggression: `0` is out of range"),
            ("slowStart: {minWeightPercent: 0}", "slowStart.minWeightPercent: 0 is out of range"),
            ("slowStart: {window: 3s}", "slowStart.window: there is no key `window` here"),
            ("outlierDetection: {consecutive5xx: 0}", "outlierDetection.consecutive5xx: 0 is out of range"),
            (
                "outlierDetection: {consecutive5xx: never}",
                "outlierDetection.consecutive5xx: expected a whole number, found `never`",
            ),
            ("outlierDetection: {consecutive5xx: off}", "~outlierDetection: no failure ejects a server"),
            (
                "outlierDetection: {maxEjectionTime: 3s}",
                "~outlierDetection.maxEjectionTime: 3s is shorter than the `baseEjectionTime` of 30s",
            ),
            (
                "outlierDetection: {maxEjectionPercent: 101}",
                "outlierDetection.maxEjectionPercent: 101 is out of range",
            ),
            ("outlierDetection: {interval: -1}", "outlierDetection.interval: must be longer than 0"),
            ("panicThreshold: 101", "panicThreshold: 101 is out of range"),
            ("panicThreshold: 50%", "panicThreshold: expected a whole number, found `50%`"),
        ] {
            assert_eq!(load_balancer_problems(&format!("{{servers: [], {keys}}}")), [expected], "{keys}");
        }
    }
}
