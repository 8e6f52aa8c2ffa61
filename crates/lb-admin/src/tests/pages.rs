//! Paths, redirections, the dashboard.

use std::sync::Arc;

use super::{header, text};
use crate::Internal;
use crate::testing::{api, ask, view};

#[test]
fn the_base_path_moves_everything() {
    let mut view = view();
    let mut fixed = (*view.static_config).clone();
    fixed.api.as_mut().unwrap().base_path = "/ops/".into();
    view.static_config = Arc::new(fixed);
    assert_eq!(api("/ops/api/version", &view)["Version"], "1.2.3");
    for (path, status) in [("/api/version", 404), ("/opsx/api/version", 404), ("/ops/dashboard/", 200)] {
        assert_eq!(ask(Internal::Api, path, &view).status, status, "{path}");
    }
    for path in ["/ops", "/ops/", "/ops/dashboard"] {
        let response = ask(Internal::Dashboard, path, &view);
        assert_eq!(
            (response.status, header(&response, "Location")),
            (302, Some("/ops/dashboard/")),
            "{path}"
        );
    }
}

#[test]
fn the_dashboard_stands_alone() {
    let view = view();
    let response = ask(Internal::Dashboard, "/dashboard/", &view);
    let policy = header(&response, "Content-Security-Policy").unwrap();
    assert!(policy.contains("script-src 'sha256-") && policy.contains("style-src 'sha256-"), "{policy}");
    let page = text(&response);
    for foreign in ["http://", "https://", "src=", "<link", "@import", "innerHTML", " style=", " onclick="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(ask(Internal::Dashboard, "/dashboard/other.js", &view).status, 404);
}
