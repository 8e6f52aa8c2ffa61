use super::*;

#[test]
fn only_what_may_change_something_matters() {
    let matters = |kind: &str, action: &str| {
        let event = format!("{{\"Type\":\"{kind}\",\"Action\":\"{action}\"}}");
        matters(&serde_json::from_str(&event).unwrap())
    };
    for action in ["start", "die", "health_status: healthy", "pause", "unpause", "rename"] {
        assert!(matters("container", action), "{action}");
    }
    for action in ["exec_create: curl", "exec_start: curl", "exec_die", "create", "attach", "top", "kill"] {
        assert!(!matters("container", action), "{action}");
    }
    let killed = |signal: &str| {
        let actor = format!("{{\"ID\":\"a\",\"Attributes\":{{\"signal\":\"{signal}\"}}}}");
        let event = format!("{{\"Type\":\"container\",\"Action\":\"kill\",\"Actor\":{actor}}}");
        super::matters(&serde_json::from_str(&event).unwrap())
    };
    assert!(killed("15") && killed("9") && !killed("1") && !killed("10"));
    assert!(matters("network", "connect") && !matters("network", "create") && !matters("image", "start"));
}
