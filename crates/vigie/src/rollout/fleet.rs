//! The servers of the service, seen and told over the API of the running instance.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api_client::{ApiClient, Refused};
use crate::attempt::{OnDisk, Outcome};
use crate::options::Options;
use crate::{listening, server};

/// How long an instance that does not answer is borne with: it may be restarted or upgraded just then.
const GRACE: Duration = Duration::from_secs(10);

pub(super) struct Fleet {
    api: ApiClient,
    on_disk: OnDisk,
    /// `name@provider`.
    pub(super) service: String,
}

impl Fleet {
    /// `service` is `name@provider`, or the name alone where that is clear.
    pub(super) async fn find(api: ApiClient, options: &Options, service: &str) -> anyhow::Result<Self> {
        let services = api.ask("GET", "/api/http/services?per_page=1000000", None).await?;
        let names =
            services.as_array().into_iter().flatten().filter(|known| known.get("loadBalancer").is_some());
        let names: Vec<&str> = names.filter_map(|known| known["name"].as_str()).collect();
        let short = |name: &&str| name.rsplit_once('@').is_some_and(|(name, _)| name == service);
        let found: Vec<&str> = match names.iter().find(|name| **name == service) {
            Some(name) => vec![*name],
            None => names.iter().copied().filter(short).collect(),
        };
        match found[..] {
            [name] => Ok(Self { service: name.to_owned(), on_disk: OnDisk::read(options), api }),
            [] => {
                let hint = lb_config::suggest::hint(service, "services", names.iter().copied());
                bail!("no service with servers is called `{service}`; {hint}")
            }
            _ => bail!("`{service}` may be {}: write the whole name", found.join(" or ")),
        }
    }

    /// `host:port` of the API.
    pub(super) fn instance(&self) -> &str {
        self.api.authority()
    }

    /// The services as they are now.
    pub(super) async fn look(&self) -> anyhow::Result<Sight> {
        let began = Instant::now();
        loop {
            match self.api.ask("GET", "/api/http/services?per_page=1000000", None).await {
                Ok(services) => {
                    let services = services.as_array().cloned().unwrap_or_default();
                    let own = services.iter().find(|known| known["name"] == self.service).cloned();
                    let own =
                        own.with_context(|| format!("{} is gone from the configuration", self.service))?;
                    return Ok(Sight { own, services });
                }
                Err(error) if error.is::<Refused>() || began.elapsed() > GRACE => return Err(error),
                Err(_) => sleep(super::POLL).await,
            }
        }
    }

    /// What a server is to do from now on, in each of these services.
    pub(super) async fn order(&self, places: &[Place], state: &str, by: &str) -> anyhow::Result<()> {
        let mut order = json!({ "state": state, "by": by.chars().take(100).collect::<String>() });
        if state == "drain" {
            // Clients with a sticky cookie move on as well: their server is about to go.
            order["deadline"] = "0s".into();
        }
        for (service, url) in places {
            let began = Instant::now();
            while let Err(error) = self.api.ask("PUT", &server::path(service, url), Some(&order)).await {
                let is_refused = error.is::<Refused>();
                // The order is in force for whenever it comes back; there is nothing to show for it.
                if is_refused && state == "ready" && self.look().await?.places(url).is_empty() {
                    break;
                }
                if is_refused || began.elapsed() > GRACE {
                    return Err(error).with_context(|| format!("{url} is not set to {state}"));
                }
                sleep(super::POLL).await;
            }
        }
        Ok(())
    }

    /// How well a server is, asked from here: what the instance knows may be from before it was replaced.
    pub(super) async fn attempt(&self, service: &Sight, url: &str) -> Result<(), String> {
        let definition = self.on_disk.definition(&service.own);
        let Some(trial) = definition.and_then(|definition| definition.trial(url)) else { return Ok(()) };
        match trial.run(&listening::sockets()).await {
            Outcome::Up | Outcome::Degraded => Ok(()),
            Outcome::Unreachable(reason, _) | Outcome::Ill(reason) => Err(reason),
        }
    }

    /// Longest time after which the instance sees that a server is back; `None`: nothing looks.
    pub(super) fn notices_within(&self, service: &Sight) -> Option<Duration> {
        let check = self.on_disk.definition(&service.own)?.check?;
        Some(check.unhealthy_interval * check.healthy_threshold + check.timeout)
    }
}

/// Service and URL.
pub(super) type Place = (String, String);

/// The service at one moment, and all others.
pub(super) struct Sight {
    own: Value,
    services: Vec<Value>,
}

/// `scheme://host:port`: the same server in two services.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..].find('/').map_or(url, |end| &url[..start + end])
}

impl Sight {
    fn servers(&self) -> impl Iterator<Item = &Value> {
        self.own["serverDetails"].as_array().into_iter().flatten()
    }

    /// Every server of every service that is the one at `url`.
    fn all<'s>(&'s self, url: &'s str) -> impl Iterator<Item = (&'s Value, &'s Value)> {
        let servers = |service: &'s Value| {
            let servers = service["serverDetails"].as_array().into_iter().flatten();
            servers.map(move |server| (service, server))
        };
        let is_it = move |server: &Value| server["url"].as_str().map(origin) == Some(origin(url));
        self.services.iter().flat_map(servers).filter(move |(_, server)| is_it(server))
    }

    /// Each of them.
    pub(super) fn places(&self, url: &str) -> Vec<Place> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.all(url).map(|(service, server)| (text(&service["name"]), text(&server["url"]))).collect()
    }

    pub(super) fn has_check(&self) -> bool {
        self.own["loadBalancer"].get("healthCheck").is_some()
    }

    pub(super) fn urls(&self) -> Vec<String> {
        let mut urls: Vec<String> =
            self.servers().filter_map(|server| server["url"].as_str()).map(str::to_owned).collect();
        urls.dedup();
        urls
    }

    fn server(&self, url: &str) -> Option<&Value> {
        self.servers().find(|server| server["url"] == url)
    }

    pub(super) fn has(&self, url: &str) -> bool {
        self.server(url).is_some()
    }

    pub(super) fn in_flight(&self, url: &str) -> u64 {
        self.all(url).filter_map(|(_, server)| server["inFlight"].as_u64()).sum()
    }

    /// Why it gets no requests; `None`: it gets some.
    pub(super) fn trouble(&self, url: &str) -> Option<String> {
        let Some(server) = self.server(url) else {
            return Some("is no longer in the configuration".to_owned());
        };
        if server["state"] != "ready" {
            let by = server["stateBy"].as_str().unwrap_or("somebody");
            return Some(format!("is in {} ({by})", server["state"].as_str().unwrap_or_default()));
        }
        self.ill(url)
    }

    /// Why it is not well, whatever operators want of it.
    pub(super) fn ill(&self, url: &str) -> Option<String> {
        let server = self.server(url)?;
        if server["health"] == "unhealthy" {
            return Some("is unhealthy".to_owned());
        }
        (server["ejected"] == true).then(|| "is ejected: its requests fail".to_owned())
    }

    /// How many others get requests.
    pub(super) fn serving_without(&self, url: &str) -> usize {
        self.urls().iter().filter(|other| *other != url && self.trouble(other).is_none()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight() -> Sight {
        let server = |url: &str, health: &str, state: &str, in_flight: u64| json!({"url": url, "health": health, "state": state, "inFlight": in_flight});
        let own = json!({"name": "api@file", "loadBalancer": {}, "serverDetails": [
            server("http://a:1", "healthy", "ready", 1),
            server("http://b:1", "unhealthy", "ready", 0),
            server("http://c:1", "degraded", "drain", 2),
        ]});
        let other =
            json!({"name": "slow@file", "serverDetails": [server("http://a:1/x", "healthy", "ready", 4)]});
        Sight { services: vec![own.clone(), other], own }
    }

    #[test]
    fn a_server_is_out_for_a_reason() {
        let sight = sight();
        assert_eq!(sight.trouble("http://a:1"), None);
        assert_eq!(sight.trouble("http://b:1").as_deref(), Some("is unhealthy"));
        assert_eq!(sight.trouble("http://c:1").as_deref(), Some("is in drain (somebody)"));
        assert_eq!(sight.ill("http://c:1"), None);
        assert_eq!(sight.trouble("http://d:1").as_deref(), Some("is no longer in the configuration"));
        assert_eq!((sight.serving_without("http://a:1"), sight.serving_without("http://b:1")), (0, 1));
    }

    #[test]
    fn a_server_is_found_in_every_service() {
        let sight = sight();
        assert_eq!(sight.in_flight("http://a:1"), 5);
        let places = |url| sight.places(url).into_iter().map(|(service, url)| service + " " + &url);
        let all: Vec<_> = places("http://a:1").collect();
        assert_eq!(all, ["api@file http://a:1", "slow@file http://a:1/x"]);
        assert_eq!(places("http://gone:1").count(), 0);
    }
}
