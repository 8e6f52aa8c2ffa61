//! The sticky cookie of a service as the core wants it.

use lb_config::dynamic::{SameSite, StickyCookie};
use lb_core::sticky::{self, SetCookie};

pub(crate) fn set_cookie(cookie: &StickyCookie) -> SetCookie {
    SetCookie {
        name: cookie.name.clone(),
        path: cookie.path.clone(),
        domain: cookie.domain.clone(),
        max_age: cookie.max_age,
        http_only: cookie.http_only,
        secure: cookie.secure,
        same_site: cookie.same_site.map(|same_site| match same_site {
            SameSite::None => sticky::SameSite::None,
            SameSite::Lax => sticky::SameSite::Lax,
            SameSite::Strict => sticky::SameSite::Strict,
        }),
    }
}
