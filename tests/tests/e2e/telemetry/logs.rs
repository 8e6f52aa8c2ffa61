//! Diagnostics and the access log as records of OTLP.

use lb_testkit::{Origin, PATIENCE, Script, eventually};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::collector::{Collector, attributes};
use crate::harness::{HOST, Protocol, STATIC, Vigie, app};

fn body(record: &LogRecord) -> &str {
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn both_logs_go_to_receivers() {
    for (collector, is_dual) in [(Collector::http().await, false), (Collector::grpc().await, true)] {
        let server = Origin::with("api", |_| Script::text("hello")).await;
        let otlp = collector.otlp("");
        let text = format!(
            "{STATIC}\nexperimental: {{otlpLogs: true}}\nlog: {{level: INFO, {otlp}}}\n\
             tracing: {{sampleRate: 0, {otlp}}}\n\
             accessLog: {{dualOutput: {is_dual}, filePath: '{{dir}}/access.log', {otlp}, \
             fields: {{headers: {{names: {{User-Agent: keep}}}}}}}}\n"
        );
        let vigie = Vigie::with(&text, &app("", &[server.url()])).await;
        let mut client = Protocol::Http1.connect(vigie.web()).await;
        client.request("GET", "/path?a=b", &[("User-Agent", "ua/1")], None).await;
        let find = |wanted: &str| collector.logs().into_iter().find(|record| body(record).contains(wanted));
        assert!(eventually(PATIENCE, async || find("/path?a=b").is_some()).await, "{:#?}", collector.logs());
        let request = find("/path?a=b").unwrap();
        let fields = attributes(&request.attributes);
        for (key, value) in [
            ("RequestMethod", "GET"),
            ("RequestPath", "/path?a=b"),
            ("RequestHost", HOST),
            ("DownstreamStatus", "200"),
            ("RouterName", "app@file"),
            ("entryPointName", "web"),
            ("request_User-Agent", "ua/1"),
        ] {
            assert_eq!(fields[key], value, "{key}");
        }
        let line: serde_json::Value = serde_json::from_str(body(&request)).unwrap();
        assert_eq!(line["RouterName"], "app@file");
        assert_eq!((request.severity_number, request.severity_text.as_str()), (9, "info"));
        let ids = [&request.trace_id, &request.span_id]
            .map(|id| id.iter().map(|b| format!("{b:02x}")).collect::<String>());
        assert_eq!(ids, [fields["TraceId"].clone(), fields["SpanId"].clone()]);
        assert_eq!(fields["StartUTC"], request.time_unix_nano.to_string());
        assert!(request.time_unix_nano > 1_700_000_000_000_000_000);
        assert!(eventually(PATIENCE, async || find("Configuration loaded").is_some()).await);
        let loaded = find("Configuration loaded").unwrap();
        assert_eq!(body(&loaded), "Configuration loaded");
        let fields = attributes(&loaded.attributes);
        assert_eq!((fields["provider"].as_str(), fields["routers"].as_str()), ("file", "1"));
        vigie.until_said("Configuration loaded").await;
        let file = vigie.files.path().join("access.log");
        let written = || std::fs::read_to_string(&file).unwrap_or_default().contains("/path?a=b");
        if is_dual {
            assert!(eventually(PATIENCE, async || written()).await);
        } else {
            assert!(!written(), "only `dualOutput` writes it here as well");
        }
        vigie.until_metric("lb_telemetry_dropped_total", &[("signal", "accessLogs")], 0.0).await;
    }
}
