//! Ways to a store: sentinels, TLS, users, databases.

use std::net::SocketAddr;
use std::process::Command;

use lb_testkit::{Authority, Client, Files, PATIENCE, VigieProcess, eventually, reserve_address};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{over, start, until_routers, until_stale};

async fn redis(files: &Files, address: SocketAddr, more: &[&str]) -> VigieProcess {
    let mut command = Command::new("redis-server");
    let directory = files.path().join(address.port().to_string());
    std::fs::create_dir_all(&directory).expect("a directory");
    // A file of its own: sentinels write theirs.
    std::fs::write(directory.join("redis.conf"), "save \"\"\n").expect("a file");
    command.arg("redis.conf").args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--notify-keyspace-events", "KEA", "--repl-diskless-sync-delay", "0"]).args(more);
    let mut process = VigieProcess::spawn(command.current_dir(directory)).expect("it is installed");
    process.wait_ready(address).await.expect("it listens");
    process
}

/// What one command is answered with.
async fn tell(address: SocketAddr, command: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(format!("{command}\r\n").as_bytes()).await.expect("it reads");
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.expect("it answers");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

async fn set_router(address: SocketAddr, before: &str, name: &str) {
    for (field, value) in [("service", "noop@internal"), ("rule", &format!("Path(`/{name}`)"))] {
        let answer = tell(address, &format!("{before}SET traefik/http/routers/{name}/{field} {value}")).await;
        assert!(answer.ends_with("+OK\r\n") || answer == "+OK\r\n", "{answer}");
    }
}

#[tokio::test]
async fn sentinels_say_which_redis_it_is() {
    let files = Files::new();
    let [first, second, sentinel] = std::array::from_fn(|_| reserve_address());
    let master = redis(&files, first, &[]).await;
    set_router(first, "", "a").await;
    let port = first.port().to_string();
    let _replica = redis(&files, second, &["--replicaof", "127.0.0.1", &port]).await;
    let replicated = async || tell(second, "GET traefik/http/routers/a/rule").await.contains("Path");
    assert!(eventually(PATIENCE, replicated).await);
    let config = format!(
        "bind 127.0.0.1\nport {}\nsentinel monitor main 127.0.0.1 {port} 1\n\
         sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 1000\n",
        sentinel.port()
    );
    let config = files.write("sentinel.conf", &config);
    let mut command = Command::new("redis-server");
    command.arg(config).arg("--sentinel").current_dir(files.path());
    let mut watcher = VigieProcess::spawn(&mut command).expect("it is installed");
    watcher.wait_ready(sentinel).await.expect("it listens");
    let sees_both =
        async || tell(sentinel, "SENTINEL master main").await.contains("num-slaves\r\n$1\r\n1\r\n");
    assert!(eventually(PATIENCE, sees_both).await);
    let vigie =
        start(&format!("{{redis: {{endpoints: '{sentinel}', sentinel: {{masterName: main}}}}}}")).await;
    until_routers(&vigie, "redis", &["a"]).await;
    drop(master);
    until_stale(&vigie, "redis", true).await;
    assert_eq!(vigie.get("/a").await.status, 418);
    let promoted = async || tell(second, "ROLE").await.contains("master");
    assert!(eventually(PATIENCE, promoted).await, "{}", watcher.stdout());
    until_stale(&vigie, "redis", false).await;
    set_router(second, "", "b").await;
    until_routers(&vigie, "redis", &["a", "b"]).await;
    let unknown = format!("{{redis: {{endpoints: '{sentinel}', sentinel: {{masterName: mian}}}}}}");
    start(&unknown).await.until_said("no server is called `mian` there").await;
}

#[tokio::test]
async fn redis_over_tls_with_a_user_and_a_database() {
    let (files, authority) = (Files::new(), Authority::new("ca"));
    let ca = files.write("ca.pem", authority.pem());
    let (certificate, key) = authority.issue(&["127.0.0.1"]).write(files.path(), "redis");
    let (plain, tls) = (reserve_address(), reserve_address());
    let text = |path: &std::path::Path| path.display().to_string();
    let _redis = redis(
        &files,
        plain,
        &[
            "--tls-port",
            &tls.port().to_string(),
            "--tls-cert-file",
            &text(&certificate),
            "--tls-key-file",
            &text(&key),
            "--tls-ca-cert-file",
            &text(&ca),
            "--tls-auth-clients",
            "no",
        ],
    )
    .await;
    // May read; `CONFIG` is forbidden, and to listen.
    let rule = "ACL SETUSER vigie on >hush ~traefik/* resetchannels +@read +@connection";
    assert_eq!(tell(plain, rule).await, "+OK\r\n");
    set_router(plain, "SELECT 3\r\n", "a").await;
    set_router(plain, "", "b").await;
    let provider = format!(
        "{{redis: {{endpoints: '{tls}', db: 3, username: vigie, password: hush, tls: {{ca: '{{dir}}/ca.pem'}}}}}}"
    );
    let vigie = over(files, &provider).await;
    until_routers(&vigie, "redis", &["a"]).await;
    vigie.until_said("CONFIG SET notify-keyspace-events KEA").await;
    set_router(plain, "SELECT 3\r\n", "c").await;
    until_routers(&vigie, "redis", &["a", "c"]).await;
    until_stale(&vigie, "redis", false).await;
}

#[tokio::test]
async fn etcd_with_a_user_over_tls() {
    let (files, authority) = (Files::new(), Authority::new("ca"));
    files.write("ca.pem", authority.pem());
    let (certificate, key) = authority.issue(&["127.0.0.1"]).write(files.path(), "etcd");
    let (address, peers) = (reserve_address(), reserve_address());
    let (clients, peers) = (format!("https://{address}"), format!("http://{peers}"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(files.path().join("data")).args(["--listen-client-urls", &clients]);
    command.args(["--advertise-client-urls", &clients, "--listen-peer-urls", &peers]);
    command.args(["--initial-advertise-peer-urls", &peers, "--initial-cluster", &format!("default={peers}")]);
    command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
    let mut etcd = VigieProcess::spawn(&mut command).expect("it is installed");
    etcd.wait_ready(address).await.expect("it listens");
    let config = authority.client_config(&[]);
    let ask = async |path: &str, body: &str| {
        let mut client =
            Client::connect_tls(address, std::sync::Arc::clone(&config), "127.0.0.1").await.ok()?;
        let answer = client.request("POST", "localhost", path, &[], Some(body.as_bytes())).await.ok()?;
        (answer.status == 200).then_some(())
    };
    // `traefik/http/routers/a/rule` and `.../service`, and what they say.
    let pairs = [
        ("dHJhZWZpay9odHRwL3JvdXRlcnMvYS9ydWxl", "UGF0aChgL2FgKQ=="),
        ("dHJhZWZpay9odHRwL3JvdXRlcnMvYS9zZXJ2aWNl", "bm9vcEBpbnRlcm5hbA=="),
    ];
    for (key, value) in pairs {
        let body = format!(r#"{{"key": "{key}", "value": "{value}"}}"#);
        assert!(eventually(PATIENCE, async || ask("/v3/kv/put", &body).await.is_some()).await);
    }
    for (path, body) in [
        ("user/add", r#"{"name": "root", "password": "hush"}"#),
        ("role/add", r#"{"name": "root"}"#),
        ("user/grant", r#"{"user": "root", "role": "root"}"#),
        ("enable", "{}"),
    ] {
        assert!(ask(&format!("/v3/auth/{path}"), body).await.is_some(), "{path}");
    }
    let provider = format!(
        "{{etcd: {{endpoints: '{address}', username: root, password: hush, tls: {{ca: '{{dir}}/ca.pem'}}}}}}"
    );
    let vigie = over(files, &provider).await;
    until_routers(&vigie, "etcd", &["a"]).await;
    until_stale(&vigie, "etcd", false).await;
}
