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
    assert!(matters("network", "connect") && !matters("network", "create") && !matters("image", "start"));
}
