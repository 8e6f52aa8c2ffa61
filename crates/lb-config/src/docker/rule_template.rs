//! `defaultRule`: the rule of routers that give none.
//!
//! A template as those of dynamic files, for which `.Name` and `.ContainerName` are texts and `.Labels` a map of them.

use super::container::Container;
use crate::document::template;

/// Traefik's.
const DEFAULT: &str = "Host(`{{ normalize .Name }}`)";

#[derive(Clone, Debug)]
pub struct RuleTemplate(String);

impl RuleTemplate {
    /// # Errors
    /// Everything that is wrong: the byte, what, and a way out.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<template::Flaw>> {
        let flaws = template::flaws(text);
        if flaws.is_empty() { Ok(Self(text.to_owned())) } else { Err(flaws) }
    }

    /// # Errors
    /// Why there is none for this container.
    pub(super) fn render(&self, container: &Container) -> Result<String, String> {
        let texts = [("Name", container.base_name()), ("ContainerName", container.name.clone())];
        match template::fill_in(&self.0, &texts, ("Labels", &container.labels)) {
            Ok(rule) if rule.is_empty() => Err("`defaultRule` is empty for it".to_owned()),
            Ok(rule) => Ok(rule),
            Err(reason) => Err(format!("`defaultRule` says none: {reason}")),
        }
    }
}

impl Default for RuleTemplate {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> Result<String, String> {
        let labels = [("app", "Shop_1"), ("com.example.host", "a.test,b.test")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let container = Container { name: "web_1".to_owned(), labels, ..Container::default() };
        RuleTemplate::parse(template).unwrap().render(&container)
    }

    /// As Traefik fills them in.
    #[test]
    fn what_names_a_container_is_filled_in() {
        for (template, expected) in [
            (DEFAULT, "Host(`web-1`)"),
            ("Host(`{{ .ContainerName }}.example.com`)", "Host(`web_1.example.com`)"),
            ("Host(`{{index .Labels \"app\"}}`)", "Host(`Shop_1`)"),
            ("Host(`{{ normalize (index .Labels `app`) }}`)", "Host(`Shop-1`)"),
            ("Host(`{{ .ContainerName | normalize | upper }}`)", "Host(`WEB-1`)"),
            ("a {{- .Name -}} b", "aweb-1b"),
            ("PathPrefix(`/`)", "PathPrefix(`/`)"),
            ("{{ .Labels.app }}{{ .Labels.absent }}", "Shop_1<no value>"),
            (
                "{{ if index .Labels \"absent\" }}x{{ else }}Host(`{{ trimSuffix \"-1\" .Name }}.test`){{ end }}",
                "Host(`web.test`)",
            ),
            ("Host(`{{ (split \"-\" .Name)._0 }}`)", "Host(`web`)"),
            ("Host(`{{ splitList \"-\" .Name | first }}`)", "Host(`web`)"),
            (
                "{{ range $i, $h := splitList \",\" (index .Labels \"com.example.host\") }}{{ if $i }} || {{ end }}Host(`{{ $h }}`){{ end }}",
                "Host(`a.test`) || Host(`b.test`)",
            ),
            ("{{ .Name | replace \"-\" \".\" | printf \"Host(`%s.test`)\" }}", "Host(`web.1.test`)"),
        ] {
            assert_eq!(rendered(template).as_deref(), Ok(expected), "{template}");
        }
        assert_eq!(RuleTemplate::default().render(&Container::default()), Ok("Host(``)".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_told_where_it_is() {
        for (template, at, expected) in [
            ("ab{{ .Name", 2, "no"),
            ("é\n {{ .Name | uper }}", 15, "there is no template function `uper`"),
            ("{{ now }}", 3, "the template function `now` is not supported"),
        ] {
            let flaws = RuleTemplate::parse(template).unwrap_err();
            assert!(flaws[0].0 == at && flaws[0].1.contains(expected), "{template}: {flaws:?}");
        }
        for (template, expected) in [
            ("{{ index .Labels \"absent\" }}", "`defaultRule` is empty for it"),
            ("{{ .Nmae }}", "there is no field `Nmae`"),
            ("{{ index (splitList \".\" .Name) 3 }}", "there is no element 3"),
            ("{{ range until 10000000 }}{{ end }}", "more than 256 MiB"),
        ] {
            let told = rendered(template).unwrap_err();
            assert!(told.contains(expected), "{template}: {told}");
        }
    }
}
