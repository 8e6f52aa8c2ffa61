//! Whose keys requests to AWS are signed with: those of the environment, of a file, of a container, of a machine, or of a
//! role that these may take (<https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>).

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use http::Method;
use lb_config::dynamic::Secret;
use lb_config::read_string;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::ProviderError;
use super::api::{Api, encoded, form, not_understood, understood};
use super::aws::{Asked, Keys, element, sign, unescaped};
use super::variables::{Lacking, Variables};

/// For what is on the same machine. Chosen.
const NEAR: Duration = Duration::from_secs(5);
const MACHINE: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Keys that are looked for when they are needed.
pub(super) struct Keyring {
    source: Source,
    /// A role that is taken with them.
    role: Option<Role>,
    sts: Sts,
    keys: OnceCell<Keys>,
}

enum Source {
    Known(Keys),
    /// A file's token is good for a role.
    Token {
        role: Role,
        token: Secret,
    },
    Container {
        api: Api,
        authorization: Option<Secret>,
    },
    Machine(Api),
}

struct Role {
    arn: String,
    external_id: Option<String>,
}

/// What gives keys for roles.
struct Sts {
    api: Api,
    region: String,
}

/// As containers and machines are told.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

impl Keyring {
    pub(super) fn open(
        variables: &Variables<'_>,
        region: &str,
        timeout: Duration,
    ) -> Result<Self, ProviderError> {
        let role = variables.text(&["AWS_ASSUME_ROLE_ARN"])?;
        let external_id = variables.text(&["AWS_EXTERNAL_ID"])?;
        let role = role.map(|arn| Role { arn, external_id });
        let sts = Sts::open(variables, region, timeout)?;
        Ok(Self { source: Source::find(variables)?, role, sts, keys: OnceCell::new() })
    }

    pub(super) async fn keys(&self) -> Result<&Keys, ProviderError> {
        self.keys.get_or_try_init(|| self.find()).await
    }

    async fn find(&self) -> Result<Keys, ProviderError> {
        let keys = match &self.source {
            Source::Known(keys) => keys.clone(),
            Source::Token { role, token } => {
                let token = ("WebIdentityToken", token.reveal());
                self.sts.take("AssumeRoleWithWebIdentity", role, &[token], None).await?
            }
            Source::Container { api, authorization } => {
                let headers = authorization.iter().map(|token| ("authorization", token.reveal()));
                let headers: Vec<_> = headers.collect();
                given(&understood(&api.request(Method::GET, "", &headers, String::new()).await?)?)
            }
            Source::Machine(api) => of_machine(api).await.map_err(|error| {
                let nothing = missing();
                ProviderError::Refused(format!("{nothing}, and the machine has no role: {error}"))
            })?,
        };
        match &self.role {
            None => Ok(keys),
            Some(role) => self.sts.take("AssumeRole", role, &[], Some(&keys)).await,
        }
    }
}

impl Source {
    fn find(variables: &Variables<'_>) -> Result<Self, ProviderError> {
        let id = variables.text(&["AWS_ACCESS_KEY_ID"])?;
        match (id, variables.find(&["AWS_SECRET_ACCESS_KEY"])?) {
            (Some(id), Some(secret)) => {
                let session = variables.find(&["AWS_SESSION_TOKEN"])?;
                return Ok(Self::Known(Keys { id, secret, session }));
            }
            (Some(_), None) => return Err(Lacking::Missing("AWS_SECRET_ACCESS_KEY".to_owned()).into()),
            (None, Some(_)) => return Err(Lacking::Missing("AWS_ACCESS_KEY_ID".to_owned()).into()),
            (None, None) => {}
        }
        if let Some(keys) = of_file(variables)? {
            return Ok(Self::Known(keys));
        }
        // By its name it is a file.
        let token = variables.find(&["AWS_WEB_IDENTITY_TOKEN"])?;
        if let Some((token, arn)) = token.zip(variables.text(&["AWS_ROLE_ARN"])?) {
            return Ok(Self::Token { role: Role { arn, external_id: None }, token });
        }
        let relative = variables.text(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"])?;
        let url = relative.map(|path| format!("{CONTAINER}{path}"));
        if let Some(url) = url.or(variables.text(&["AWS_CONTAINER_CREDENTIALS_FULL_URI"])?) {
            let url = super::base_url("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)?;
            let authorization = variables.find(&["AWS_CONTAINER_AUTHORIZATION_TOKEN"])?;
            return Ok(Self::Container { api: Api::new(&url, NEAR)?, authorization });
        }
        if variables.flag("AWS_EC2_METADATA_DISABLED", false)? {
            return Err(missing().into());
        }
        let elsewhere = variables.text(&["AWS_EC2_METADATA_SERVICE_ENDPOINT"])?;
        let url = elsewhere.as_deref().unwrap_or(MACHINE);
        let url = super::base_url("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)?;
        Ok(Self::Machine(Api::new(&url, NEAR)?))
    }
}

fn missing() -> Lacking {
    Lacking::Missing("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned())
}

fn given(given: &Given) -> Keys {
    Keys {
        id: given.access_key_id.clone(),
        secret: Secret::new(&given.secret_access_key),
        session: Some(Secret::new(&given.token)),
    }
}

/// The second version of what machines are told: who asks must first ask for a token.
async fn of_machine(api: &Api) -> Result<Keys, ProviderError> {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let text =
        |answer: crate::http::Answer| String::from_utf8(answer.body.into()).map_err(|_| not_understood());
    let seconds = [("x-aws-ec2-metadata-token-ttl-seconds", "300")];
    let token = text(api.request(Method::PUT, "/latest/api/token", &seconds, String::new()).await?)?;
    let token = [("x-aws-ec2-metadata-token", token.trim())];
    let roles = text(api.request(Method::GET, ROLES, &token, String::new()).await?)?;
    let role = encoded(roles.lines().next().unwrap_or_default().trim());
    let answer = api.request(Method::GET, &format!("{ROLES}{role}"), &token, String::new()).await?;
    Ok(given(&understood(&answer)?))
}

impl Sts {
    fn open(variables: &Variables<'_>, region: &str, timeout: Duration) -> Result<Self, ProviderError> {
        let url = match region {
            "" => "https://sts.amazonaws.com".to_owned(),
            _ if region.starts_with("cn-") => format!("https://sts.{region}.amazonaws.com.cn"),
            _ => format!("https://sts.{region}.amazonaws.com"),
        };
        let elsewhere = variables.text(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"])?;
        let url = super::base_url("AWS_ENDPOINT_URL_STS", elsewhere.as_deref().unwrap_or(&url))?;
        let region = if region.is_empty() { "us-east-1" } else { region }.to_owned();
        Ok(Self { api: Api::new(&url, timeout)?, region })
    }

    /// Signed with keys, or not where something else shows who asks.
    async fn take(
        &self,
        action: &str,
        role: &Role,
        more: &[(&str, &str)],
        keys: Option<&Keys>,
    ) -> Result<Keys, ProviderError> {
        let mut pairs = vec![
            ("Action", action),
            ("Version", "2011-06-15"),
            ("RoleArn", role.arn.as_str()),
            ("RoleSessionName", "vigie"),
        ];
        pairs.extend(role.external_id.as_deref().map(|id| ("ExternalId", id)));
        pairs.extend(more);
        let body = form(&pairs);
        let asked = Asked { method: "POST", host: self.api.host(), path: "/", query: "", body: &body };
        let signed = keys.map(|keys| sign(keys, &self.region, "sts", &asked, SystemTime::now()));
        let mut headers = vec![FORM];
        headers.extend(signed.iter().flatten().map(|(name, value)| (*name, value.as_str())));
        let answer = self.api.request(Method::POST, "/", &headers, body.clone()).await?;
        let text = String::from_utf8(answer.body.into()).map_err(|_| not_understood())?;
        let part = |name| element(&text, name).map(unescaped).ok_or_else(not_understood);
        Ok(Keys {
            id: part("AccessKeyId")?,
            secret: Secret::new(&part("SecretAccessKey")?),
            session: Some(Secret::new(&part("SessionToken")?)),
        })
    }
}

/// Of the file that the tools of AWS share; one that nobody has named may be missing.
fn of_file(variables: &Variables<'_>) -> Result<Option<Keys>, ProviderError> {
    let named = variables.text(&["AWS_SHARED_CREDENTIALS_FILE"])?.map(PathBuf::from);
    let home = || Some(PathBuf::from((variables.0)("HOME")?).join(".aws/credentials"));
    let profile = variables.text(&["AWS_PROFILE"])?;
    let Some(path) = named.clone().or_else(home) else { return Ok(None) };
    let text = match read_string(&path) {
        Ok(text) => text,
        Err(_) if named.is_none() && profile.is_none() => return Ok(None),
        Err(error) => return Err(ProviderError::Refused(format!("{path:?}: {error}"))),
    };
    let name = profile.as_deref().unwrap_or("default");
    match of_profile(&text, name) {
        None if named.is_some() || profile.is_some() => {
            Err(ProviderError::Refused(format!("{path:?} has no keys for the profile {name:?}")))
        }
        keys => Ok(keys),
    }
}

/// The keys of one section of `[name]` and `key = value`.
fn of_profile(text: &str, profile: &str) -> Option<Keys> {
    let mut section = "";
    let (mut id, mut secret, mut session) = (None, None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| section == profile) else { continue };
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "aws_access_key_id" => id = Some(value.to_owned()),
            "aws_secret_access_key" => secret = Some(Secret::new(value)),
            "aws_session_token" => session = Some(Secret::new(value)),
            _ => {}
        }
    }
    Some(Keys { id: id?, secret: secret?, session })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::{Server, Told, variables};

    #[test]
    fn keys_are_in_the_environment_or_in_the_shared_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let text = "# x\n[default]\naws_access_key_id = D\naws_secret_access_key=d=1\n\n[ other ]\n\
                    aws_access_key_id=O\naws_secret_access_key=o\naws_session_token=s\nregion=x\n[half]\naws_access_key_id=H\n";
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let find = |set: &[(&str, &str)]| match variables(set, Source::find) {
            Ok(Source::Known(Keys { id, secret, session })) => {
                format!("{id} {} {}", secret.reveal(), session.is_some())
            }
            Ok(_) => "elsewhere".to_owned(),
            Err(error) => error.to_string(),
        };
        let shared = ("AWS_SHARED_CREDENTIALS_FILE", path.as_str());
        for (set, expected) in [
            (&[("AWS_ACCESS_KEY_ID", "I"), ("AWS_SECRET_ACCESS_KEY", "k")][..], "I k false"),
            (&[shared], "D d=1 false"),
            (&[shared, ("AWS_PROFILE", "other")], "O o true"),
            (&[("AWS_ACCESS_KEY_ID", "I"), shared], "the environment lacks AWS_SECRET_ACCESS_KEY"),
            (&[("HOME", "/nowhere")], "elsewhere"),
            (
                &[("AWS_EC2_METADATA_DISABLED", "true")],
                "the environment lacks AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ),
            (&[("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/x")], "\"/nowhere/x\": No such file"),
        ] {
            let found = find(set);
            assert!(found.starts_with(expected), "{found}");
        }
        let half = find(&[shared, ("AWS_PROFILE", "half")]);
        assert!(half.ends_with("has no keys for the profile \"half\""), "{half}");
    }

    /// As containers, machines and STS answer.
    async fn amazon() -> Server {
        Server::start(|request| {
            let told = Told::of(request);
            let keys = |id: &str| (200, format!(r#"{{"AccessKeyId":"{id}","SecretAccessKey":"s","Token":"t"}}"#));
            let is_known = told.header("x-aws-ec2-metadata-token") == "t0ken";
            match told.line.as_str() {
                "GET /container" if told.header("authorization") == "c0ntainer" => keys("CONTAINER"),
                "PUT /latest/api/token" if told.header("x-aws-ec2-metadata-token-ttl-seconds") == "300" => {
                    (200, "t0ken".to_owned())
                }
                "GET /latest/meta-data/iam/security-credentials/" if is_known => (200, "my-role\n".to_owned()),
                "GET /latest/meta-data/iam/security-credentials/my-role" if is_known => keys("MACHINE"),
                "POST /" => {
                    let by = told.header("authorization");
                    let by = by.split("Credential=").nth(1).and_then(|by| by.split('/').next()).unwrap_or("nobody");
                    let (action, _) = told.text.split_once("&Version=2011-06-15&").unwrap();
                    let pairs = told.text.rsplit("&RoleSessionName=vigie").next().unwrap();
                    let id = format!("{}+{by}{}", action.replace("Action=", ""), pairs.replace('&', "+"));
                    let keys = format!(
                        "<AccessKeyId>{id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
                    );
                    (200, format!("<R><Credentials>{keys}</Credentials></R>"))
                }
                _ => told.refuse(404),
            }
        })
        .await
    }

    #[tokio::test]
    async fn keys_are_asked_for_where_there_are_none() {
        let server = amazon().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "jw.t\n").unwrap();
        let (url, path) = (server.url(), path.display().to_string());
        let container = format!("{url}/container");
        let machine = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str());
        let role = ("AWS_ASSUME_ROLE_ARN", "arn:aws:iam::1:role/x");
        for (set, expected) in [
            (&[machine][..], "MACHINE"),
            (
                &[
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "c0ntainer"),
                ],
                "CONTAINER",
            ),
            (&[machine, role, ("AWS_EXTERNAL_ID", "e 1")], "AssumeRole+MACHINE+ExternalId=e%201"),
            (
                &[("AWS_WEB_IDENTITY_TOKEN_FILE", path.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/y")],
                "AssumeRoleWithWebIdentity+nobody+WebIdentityToken=jw.t",
            ),
        ] {
            let all = [&[("AWS_ENDPOINT_URL_STS", url.as_str())], set].concat();
            let open = |variables: &Variables<'_>| Keyring::open(variables, "", NEAR);
            let keyring = variables(&all, open).unwrap();
            assert_eq!(keyring.keys().await.unwrap().id, expected);
            // Asked for once.
            let asked = server.told().len();
            assert_eq!(keyring.keys().await.unwrap().session.as_ref().map(Secret::reveal), Some("t"));
            assert_eq!(server.told().len(), asked);
        }
        let nowhere = format!("{url}/nowhere");
        let open = |variables: &Variables<'_>| Keyring::open(variables, "", NEAR);
        let keyring = variables(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", nowhere.as_str())], open).unwrap();
        let told = keyring.keys().await.unwrap_err().to_string();
        let expected = "the environment lacks AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the machine has no role: ";
        assert!(told.starts_with(expected), "{told}");
    }
}
