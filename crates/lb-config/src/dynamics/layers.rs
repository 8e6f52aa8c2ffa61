//! Routers behind routers (`parentRefs`, reference 2.1): those that lead nowhere, those that nobody leads to, circles.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Draft;
use super::references::Reference;
use crate::docker::LABELLED;
use crate::problem::{Kind, quoted};

/// Routers that a circle's message shows; chosen.
const SHOWN: usize = 8;

pub(super) fn report(draft: &Draft<'_>) {
    let links: Vec<Link<'_>> = draft.references.iter().filter_map(Link::of).collect();
    let mut children: HashMap<&str, Vec<&Link<'_>>> = HashMap::new();
    for link in &links {
        children.entry(link.parent).or_default().push(link);
    }
    ends(draft, &children);
    if !links.is_empty() {
        reach(draft, &links, &children);
    }
}

/// A child names its parent.
struct Link<'d> {
    child: &'d str,
    parent: &'d str,
    reference: &'d Reference<'d>,
}

impl<'d> Link<'d> {
    fn of(reference: &'d Reference<'_>) -> Option<Self> {
        let (child, parent) = reference.layers()?;
        Some(Self { child, parent, reference })
    }
}

/// A router has either a service or children.
fn ends(draft: &Draft<'_>, children: &HashMap<&str, Vec<&Link<'_>>>) {
    // Routers of other providers may be children too: then whoever builds the merge knows whether there are any.
    let is_alone = |name: &String| name == draft.provider || LABELLED.contains(&name.as_str());
    let alone = draft.context.providers.iter().all(is_alone);
    for (name, router) in &draft.config.routers {
        let (bare, at) = place(draft, name);
        let key = format!("http.routers.{bare}");
        let Some(at) = at else { continue };
        if router.service.is_empty() && !children.contains_key(name.as_str()) && alone {
            let message = "the router has no `service`, and none names it as its parent".to_owned();
            let hint = "name the service that answers, or give other routers `parentRefs: [...]`".to_owned();
            let reason = "router has no service and no child routers".to_owned();
            draft.report.error_on(Kind::Router, name, at, &key, message, Some(hint), Some(reason));
        }
        if let (false, Some(links)) = (router.service.is_empty(), children.get(name.as_str())) {
            let child = links.first().map_or("", |link| link.child);
            let message = format!(
                "the `service` is never asked: {} and its like get all requests",
                quoted(child.split_once('@').map_or(child, |(bare, _)| bare))
            );
            let hint = "remove the service, or move it into a router with `parentRefs`".to_owned();
            draft.report.within(Kind::Router, name, || draft.report.tolerated(at, &key, message, Some(hint)));
        }
    }
}

/// Walks from the roots: tells circles on the way, and what is left.
fn reach(draft: &Draft<'_>, links: &[Link<'_>], children: &HashMap<&str, Vec<&Link<'_>>>) {
    let empty = HashMap::new();
    let defined = draft.defined.get(&Kind::Router).unwrap_or(&empty);
    let mut below: BTreeMap<&str, bool> = BTreeMap::new();
    for link in links {
        // A parent that another provider has is as good as a root.
        let foreign = !link.parent.ends_with(&format!("@{}", draft.provider));
        *below.entry(link.child).or_default() |= foreign;
    }
    let roots =
        defined.keys().map(String::as_str).filter(|name| below.get(name).is_none_or(|foreign| *foreign));
    let mut roots: Vec<&str> =
        roots.filter(|name| children.contains_key(name) || below.contains_key(name)).collect();
    roots.sort_unstable();
    let mut done: HashSet<&str> = HashSet::new();
    for root in roots {
        // Depth first, without recursion: a file may have ten thousand layers.
        let mut path: Vec<(&str, usize)> = vec![(root, 0)];
        let mut on_path: HashSet<&str> = HashSet::from([root]);
        while let Some((name, step)) = path.last_mut() {
            let Some(link) = children.get(name).and_then(|links| links.get(*step)) else {
                let (name, _) = (*name, path.pop());
                on_path.remove(name);
                done.insert(name);
                continue;
            };
            *step += 1;
            if on_path.contains(link.child) {
                circle(draft, link, &path);
            } else if !done.contains(link.child) {
                on_path.insert(link.child);
                path.push((link.child, 0));
            }
        }
    }
    for name in below.keys().filter(|name| !done.contains(*name)) {
        let (bare, Some(at)) = place(draft, name) else { continue };
        let key = format!("http.routers.{bare}.parentRefs");
        let message = "no router without `parentRefs` leads to this one".to_owned();
        let reason = "router is not reachable".to_owned();
        draft.report.error_on(Kind::Router, name, at, &key, message, None, Some(reason));
    }
}

/// The link that closes a circle is cut, everything else is in use (reference 2.1).
fn circle(draft: &Draft<'_>, link: &Link<'_>, path: &[(&str, usize)]) {
    let from = path.iter().position(|(name, _)| *name == link.child).unwrap_or(0);
    let mut names: Vec<&str> = path[from..].iter().map(|(name, _)| *name).take(SHOWN).collect();
    names.push(if path.len() - from > SHOWN { "..." } else { link.child });
    let message = format!("routers lead in a circle: {}", quoted(&names.join(" > ")));
    let hint = "remove this parent; without it the circle is open, and so it is taken".to_owned();
    let (at, key) = link.reference.place();
    draft.report.within(Kind::Router, link.parent, || draft.report.tolerated(at, &key, message, Some(hint)));
}

/// A router's name as written, and where that is.
fn place<'n>(draft: &Draft<'_>, name: &'n str) -> (&'n str, Option<crate::document::Position>) {
    let at = draft.defined.get(&Kind::Router).and_then(|routers| routers.get(name)).copied();
    (name.rsplit_once('@').map_or(name, |(bare, _)| bare), at)
}

#[cfg(test)]
mod tests {
    use crate::testing::{load, problems};
    use crate::{Kind, Loaded};

    fn with(routers: &str) -> String {
        let routers: String = routers.lines().map(|line| format!("    {}\n", line.trim())).collect();
        format!(
            "http:\n  services: {{s: {{loadBalancer: {{servers: [{{url: 'http://a'}}]}}}}}}\n  routers:\n{routers}"
        )
    }

    /// Names of the routers in use.
    fn used(loaded: &Loaded) -> String {
        let names = loaded.config.routers.keys().map(|name| name.trim_end_matches("@file"));
        names.collect::<Vec<_>>().join(" ")
    }

    /// Reasons in Traefik's words, as seen on Traefik 3.7.
    fn reasons(loaded: &Loaded, name: &str) -> Vec<String> {
        loaded.disabled.get(&(Kind::Router, format!("{name}@file"))).cloned().unwrap_or_default()
    }

    #[test]
    fn routers_behind_routers() {
        let loaded = load(&with(
            "root: {rule: 'PathPrefix(`/r`)', tls: {}}
             kid: {rule: 'Path(`/r/k`)', parentRefs: root, service: s}
             mid: {rule: 'PathPrefix(`/r/m`)', parentRefs: [root@file, other]}
             leaf: {rule: 'Path(`/r/m/l`)', parentRefs: [mid], service: s, tls: false, entryPoints: []}
             other: {rule: 'PathPrefix(`/o`)'}
             plain: {rule: 'Path(`/p`)', parentRefs: [], service: s}",
        ));
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let router = |name: &str| &loaded.config.routers[&format!("{name}@file")];
        assert_eq!(router("mid").parents, ["root@file", "other@file"]);
        assert_eq!((&*router("root").service, &*router("kid").service), ("", "s@file"));
        assert!(router("plain").parents.is_empty());
    }

    #[test]
    fn what_a_child_cannot_say() {
        for (keys, key, reason) in [
            ("tls: {}", "tls", "non-root router cannot have TLS configuration"),
            (
                "observability: {metrics: true}",
                "observability",
                "non-root router cannot have Observability configuration",
            ),
            ("entryPoints: web", "entryPoints", "non-root router cannot have Entrypoints configuration"),
        ] {
            let loaded = load(&with(&format!(
                "root: {{rule: 'Path(`/r`)'}}\nkid: {{rule: 'Path(`/k`)', parentRefs: root, service: s, {keys}}}"
            )));
            assert_eq!(reasons(&loaded, "kid"), [reason], "{keys}");
            assert_eq!(loaded.problems[0].key, format!("http.routers.kid.{key}"));
            // Nothing leads on from it now, which only whoever builds it can tell: an older child may be in force.
            assert_eq!(used(&loaded), "root");
        }
    }

    #[test]
    fn where_nothing_leads_and_what_leads_nowhere() {
        let loaded = load(&with(
            "none: {rule: 'Path(`/n`)'}
             root: {rule: 'Path(`/r`)'}
             kid: {rule: 'Path(`/k`)', parentRefs: [root], service: s}
             orphan: {rule: 'Path(`/o`)', parentRefs: [missing, root], service: s}
             orphan2: {rule: 'Path(`/o`)', parentRefs: [orphan3], service: s}
             orphan3: {rule: 'Path(`/o`)', parentRefs: [missing]}
             one: {rule: 'Path(`/1`)', parentRefs: [two]}
             two: {rule: 'Path(`/2`)', parentRefs: [one]}
             self: {rule: 'Path(`/s`)', parentRefs: [self], service: s}",
        ));
        assert_eq!(used(&loaded), "kid root");
        let missing = "parent router \"missing@file\" does not exist";
        let unreachable = "router is not reachable";
        for (name, expected) in [
            ("none", vec!["router has no service and no child routers"]),
            ("orphan", vec![missing]),
            ("orphan2", vec![unreachable]),
            ("orphan3", vec![missing, unreachable]),
            ("one", vec![unreachable]),
            ("two", vec![unreachable]),
            ("self", vec![unreachable]),
        ] {
            assert_eq!(reasons(&loaded, name), expected, "{name}");
        }
    }

    #[test]
    fn a_circle_is_opened_and_a_service_in_the_middle_is_not_asked() {
        let text = with(
            "root: {rule: 'Path(`/r`)', service: s}
             one: {rule: 'Path(`/1`)', parentRefs: [root, two]}
             two: {rule: 'Path(`/2`)', parentRefs: [one]}
             end: {rule: 'Path(`/e`)', parentRefs: [two], service: s}",
        );
        assert_eq!(used(&load(&text)), "end one root two");
        assert_eq!(
            problems(&text),
            [
                "http.routers.root: the `service` is never asked: `one` and its like get all requests",
                "http.routers.one.parentRefs[1]: routers lead in a circle: `one@file > two@file > one@file`",
            ]
        );
    }

    #[test]
    fn a_broken_parent_costs_its_children_nothing() {
        let loaded = load(&with(
            "root: {rule: 'Pth(`/r`)'}
             kid: {rule: 'Path(`/k`)', parentRefs: [root], service: s}",
        ));
        assert_eq!(used(&loaded), "kid");
        assert!(reasons(&loaded, "kid").is_empty());
    }
}
