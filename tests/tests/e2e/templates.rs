//! Dynamic files are templates: what they write is served, what is wrong with them is told, static files are none.

use std::process::Command;

use lb_testkit::{Files, Origin, PATIENCE, VigieProcess};

use crate::harness::{HOST, STATIC, Vigie, binary, origin};

/// Routers for the paths `/r0`, `/r1` ... and one for everything, all to one server.
fn routers(count: usize, url: &str) -> String {
    format!(
        r#"{{{{- /* a comment */ -}}}}
{{{{ define "router" }}}}
    {{{{ .name }}}}:
      rule: Host(`{{{{ env "VIGIE_NO_SUCH_VARIABLE" | default "{HOST}" }}}}`) && PathPrefix(`/{{{{ .path }}}}`)
      service: app
      middlewares: [mark]
{{{{- end }}}}
http:
  routers:
{{{{- range $i, $e := until {count} }}}}
  {{{{- template "router" (dict "name" (printf "router-%03d" $i) "path" (cat "r" $e | nospace)) }}}}
{{{{- end }}}}
  {{{{- template "router" (dict "name" "all" "path" "") }}}}
  middlewares:
    mark: {{headers: {{customResponseHeaders: {{X-Routers: "{{{{ len (until {count}) }}}}"}}}}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}
"#
    )
}

#[tokio::test]
async fn what_a_template_writes_is_served_and_follows_the_file() {
    let server = Origin::start("one").await;
    let vigie = Vigie::start(&routers(30, &server.url())).await;
    let answer = vigie.get("/r29/x").await;
    assert_eq!((answer.status, origin(&answer)), (200, "one".to_owned()));
    let all = vigie.json("/api/http/routers?per_page=1000").await;
    let named = |name: &str| all.as_array().unwrap().iter().find(|router| router["name"] == name).cloned();
    let last = named("router-029@file").expect("thirty routers");
    assert_eq!(last["rule"], format!("Host(`{HOST}`) && PathPrefix(`/r29`)"));
    assert!(named("router-030@file").is_none());

    vigie.write(&routers(3, &server.url()));
    vigie.until("the file was read again", |answer| answer.get("x-routers") == Some("3")).await;

    // A template with a fault is as any broken file: the last good one goes on.
    vigie.write(&routers(4, &server.url()).replace("default", "defualt"));
    vigie.until_said("there is no template function `defualt`").await;
    vigie.until_said("dynamic.yml:4:").await;
    assert_eq!(vigie.get("/").await.get("x-routers"), Some("3"));
    vigie.write(&routers(5, &server.url()));
    vigie.until("the file is mended", |answer| answer.get("x-routers") == Some("5")).await;
}

/// Problems of `vigie check` with these files.
async fn check(static_text: &str, dynamic: &str) -> String {
    let files = Files::new();
    files.write("vigie.yml", &static_text.replace("{dir}/", ""));
    files.write("dynamic.yml", dynamic);
    let mut command = Command::new(binary());
    let mut process =
        VigieProcess::spawn(command.args(["check", "--configFile=vigie.yml"]).current_dir(files.path()))
            .unwrap();
    process.ended(PATIENCE).await.unwrap();
    process.stdout() + &process.stderr()
}

#[tokio::test]
async fn problems_lie_in_the_template_and_static_files_are_none() {
    let written =
        check(STATIC, &routers(3, "http://127.0.0.1:1").replace("service: app", "service: pap")).await;
    assert!(written.contains("dynamic.yml:5:16: http.routers.router-002.service: "), "{written}");
    let level = "ping: {}\nlog: {level: '{{ print `INFO` }}'}";
    let left = check(&STATIC.replace("ping: {}", level), &routers(1, "http://127.0.0.1:1")).await;
    assert!(left.contains("{{ print `INFO` }}"), "{left}");
}
