//! Metrics that are pushed.

use lb_testkit::{Origin, PATIENCE, Script, eventually};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use rustix::process::Signal;

use super::collector::{Collector, attributes};
use crate::harness::{Protocol, STATIC, Vigie, app};

/// Counters and gauges by name and attributes, and of histograms the count with every bucket: the last push of all.
fn last(collector: &Collector) -> Vec<(String, String, Vec<f64>)> {
    let mut lines = Vec::new();
    for (metric, resource) in collector.metrics() {
        assert_eq!(resource["service.name"], "shop");
        let mut line = |pairs: &[_], values: Vec<f64>| {
            let shown: Vec<_> =
                attributes(pairs).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
            lines.push((metric.name.clone(), shown.join(","), values));
        };
        let number = |value: &Option<Value>| match value {
            Some(Value::AsDouble(value)) => *value,
            other => panic!("{other:?}"),
        };
        match metric.data.as_ref().expect("data") {
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                sum.data_points.iter().for_each(|point| line(&point.attributes, vec![number(&point.value)]));
            }
            Data::Gauge(gauge) => {
                gauge
                    .data_points
                    .iter()
                    .for_each(|point| line(&point.attributes, vec![number(&point.value)]));
            }
            Data::Histogram(histogram) => histogram.data_points.iter().for_each(|point| {
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                assert!(
                    point.sum.is_some_and(|sum| sum >= 0.0)
                        && point.start_time_unix_nano < point.time_unix_nano
                );
                line(&point.attributes, point.explicit_bounds.clone());
            }),
            other => panic!("{other:?}"),
        }
    }
    lines
}

#[tokio::test]
async fn receivers_of_otlp_get_what_traefik_sends() {
    for collector in [Collector::http().await, Collector::grpc().await] {
        let server = Origin::with("api", |_| Script::text("hello")).await;
        let otlp = collector.otlp("");
        let keys =
            "pushInterval: 100ms, addRoutersLabels: true, explicitBoundaries: [0.2, 3], serviceName: shop, ";
        let otlp = otlp.replacen("otlp: {", &format!("otlp: {{{keys}"), 1);
        let text = STATIC.replace("prometheus: {", &format!("{otlp}, prometheus: {{"));
        let mut vigie = Vigie::with(&text, &app("", &[server.url()])).await;
        for _ in 0..3 {
            Protocol::Http1.get(vigie.web(), "/").await;
        }
        let find = |name: &str, shown: &str| {
            last(&collector)
                .into_iter()
                .filter(|(n, s, _)| n == name && s == shown)
                .map(|(.., values)| values)
                .next_back()
        };
        let labels = "code=200,entrypoint=web,method=GET,protocol=http";
        let counted = eventually(PATIENCE, async || {
            find("traefik_entrypoint_requests_total", labels) == Some(vec![3.0])
        });
        assert!(counted.await, "{:#?}", last(&collector));
        let router = "code=200,method=GET,protocol=http,router=app@file,service=app@file";
        assert_eq!(find("traefik_router_responses_bytes_total", router), Some(vec![15.0]));
        let service = "code=200,method=GET,protocol=http,service=app@file";
        assert_eq!(find("traefik_service_request_duration_seconds", service), Some(vec![0.2, 3.0]));
        let asked = "http.request.method=GET,http.response.status_code=200,url.scheme=http";
        assert_eq!(find("http.server.request.duration", asked), Some(vec![0.2, 3.0]));
        let port = server.address().port();
        let asked = format!(
            "http.request.method=GET,http.response.status_code=200,server.address=127.0.0.1,server.port={port},url.scheme=http"
        );
        assert_eq!(find("http.client.request.duration", &asked), Some(vec![0.2, 3.0]));
        let metrics = vigie.metrics().await;
        assert_eq!(metrics.value("traefik_entrypoint_requests_total", &[("entrypoint", "web")]), Some(3.0));
        assert!(
            !metrics
                .labels("traefik_entrypoint_request_duration_seconds_bucket", "le")
                .contains(&"0.2".to_owned())
        );
        // What was counted since the last push is not lost with the process.
        Protocol::Http1.get(vigie.web(), "/").await;
        vigie.signal(Signal::TERM);
        vigie.ended(PATIENCE).await;
        assert_eq!(find("traefik_entrypoint_requests_total", labels), Some(vec![4.0]));
    }
}
