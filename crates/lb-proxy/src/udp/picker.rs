//! Which server a new flow gets.

use std::collections::HashMap;
use std::sync::Arc;

use lb_config::dynamic::{Udp, UdpServer, UdpService};
use lb_config::static_config::EntryPoint;
use parking_lot::Mutex;

/// What each entry point for UDP leads to.
#[derive(Default)]
pub(crate) struct UdpTable {
    /// In the order of the static configuration; `None`: no router has it.
    entry_points: Vec<Option<Arc<Picker>>>,
    /// By name: where the next configuration finds those that did not change.
    pickers: HashMap<String, Kept>,
}

type Kept = (UdpService, Arc<Picker>);

impl UdpTable {
    /// What did not change keeps its turns.
    pub(crate) fn build(config: &Udp, entry_points: &[EntryPoint], previous: Option<&Self>) -> Self {
        let mut build = Build { config, previous, pickers: HashMap::new(), depth: 0 };
        let routed = entry_points.iter().map(|entry| {
            let (name, router) = config.router_of(&entry.name)?;
            let all = config.routers.iter().filter(|(_, router)| {
                router.entry_points.is_empty() || router.entry_points.contains(&entry.name)
            });
            if all.count() > 1 {
                tracing::warn!(
                    entryPointName = entry.name,
                    routerName = name,
                    "more than one UDP router has this entry point: the last by name counts"
                );
            }
            build.picker(&router.service)
        });
        let entry_points = routed.collect();
        Self { entry_points, pickers: build.pickers }
    }

    /// The next server of an entry point.
    pub(crate) fn pick(&self, entry_point: usize) -> Option<Arc<UdpServer>> {
        self.entry_points.get(entry_point)?.as_ref()?.pick()
    }
}

struct Build<'a> {
    config: &'a Udp,
    previous: Option<&'a UdpTable>,
    pickers: HashMap<String, Kept>,
    depth: usize,
}

/// Services inside each other; more are no configuration that anybody has. As with HTTP.
const DEEPEST: usize = 64;

impl Build<'_> {
    /// `None`: there is none, or it is too deep.
    fn picker(&mut self, name: &str) -> Option<Arc<Picker>> {
        if let Some((_, known)) = self.pickers.get(name) {
            return Some(Arc::clone(known));
        }
        let service = self.config.services.get(name)?;
        if self.depth > DEEPEST {
            return None;
        }
        self.depth += 1;
        let mut weights = Vec::new();
        let of = match service {
            UdpService::LoadBalancer { servers } => {
                weights.resize(servers.len(), 1);
                Of::Servers(servers.iter().cloned().map(Arc::new).collect())
            }
            UdpService::Weighted { services } => {
                let mut children = Vec::with_capacity(services.len());
                for child in services {
                    if let Some(picker) = self.picker(&child.service) {
                        weights.push(i64::from(child.weight));
                        children.push(picker);
                    }
                }
                Of::Services(children)
            }
        };
        self.depth -= 1;
        let kept = self.previous.and_then(|table| table.pickers.get(name));
        let turns = match kept {
            Some((before, picker)) if before == service => picker.turns.lock().clone(),
            _ => Vec::new(),
        };
        let turns = if turns.len() == weights.len() { turns } else { vec![0; weights.len()] };
        let picker = Arc::new(Picker { weights, turns: Mutex::new(turns), of });
        self.pickers.insert(name.to_owned(), (service.clone(), Arc::clone(&picker)));
        Some(picker)
    }
}

/// Takes turns by weight, smoothly interleaved: each gains its weight, the richest is chosen and pays for all.
struct Picker {
    weights: Vec<i64>,
    turns: Mutex<Vec<i64>>,
    of: Of,
}

enum Of {
    Servers(Vec<Arc<UdpServer>>),
    Services(Vec<Arc<Picker>>),
}

impl Picker {
    fn pick(&self) -> Option<Arc<UdpServer>> {
        let at = self.turn()?;
        match &self.of {
            Of::Servers(servers) => servers.get(at).cloned(),
            Of::Services(services) => services.get(at)?.pick(),
        }
    }

    /// `None`: nobody has a weight.
    fn turn(&self) -> Option<usize> {
        let mut turns = self.turns.lock();
        let mut best: Option<usize> = None;
        for (at, weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            turns[at] += weight;
            if best.is_none_or(|best| turns[at] > turns[best]) {
                best = Some(at);
            }
        }
        turns[best?] -= self.weights.iter().sum::<i64>();
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(services: &str, previous: Option<&UdpTable>) -> UdpTable {
        let (fixed, _) = lb_config::parse_static(
            "vigie.yml",
            "entryPoints: {dns: {address: ':53/udp'}, none: {address: ':54/udp'}}",
        )
        .unwrap();
        let text =
            format!("udp: {{routers: {{r: {{entryPoints: [dns], service: w}}}}, services: {{{services}}}}}");
        let context = lb_config::Context::from(&fixed);
        let config = lb_config::parse_dynamic("d.yml", &text, "file", &context).unwrap().config;
        UdpTable::build(&config.udp, &fixed.udp_entry_points, previous)
    }

    fn ports(table: &UdpTable, count: usize) -> Vec<u16> {
        (0..count).filter_map(|_| Some(table.pick(0)?.port)).collect()
    }

    #[test]
    fn flows_take_turns_by_weight() {
        let two = "s: {loadBalancer: {servers: [{address: '192.0.2.1:1'}, {address: '192.0.2.1:2'}]}}, \
                   t: {loadBalancer: {servers: [{address: '192.0.2.1:9'}]}}";
        let weighted = format!("{two}, w: {{weighted: {{services: [{{name: s, weight: 2}}, {{name: t}}]}}}}");
        let first = table(&weighted, None);
        assert_eq!(ports(&first, 4), [1, 9, 2, 1]);
        assert_eq!(ports(&table(&weighted, Some(&first)), 3), [9, 2, 1], "a reload keeps the turns");
        assert!(first.pick(1).is_none(), "no router");
        let nobody = format!("{two}, w: {{weighted: {{services: [{{name: s, weight: 0}}]}}}}");
        assert_eq!(ports(&table(&nobody, None), 3), [0; 0]);
        assert_eq!(ports(&table("w: {loadBalancer: {servers: []}}", None), 3), [0; 0]);
    }
}
