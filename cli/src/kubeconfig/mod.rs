//! `umbra kubeconfig`: contexts that lead to views, fleets and children, for the user of a context of the hub.

mod check;
mod entries;
mod root;
pub(crate) mod source;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{ArgGroup, Args};
use serde_json::Value;
use umbra_apimachinery::names::{is_dns1123_label, is_dns1123_subdomain};
use umbra_child::kubeconfig::edit;

use check::{ANSWER, Asking};
use entries::{Addition, additions, document, edits};
use root::{Kind, Root};
use source::{Chosen, Source};

/// What `umbra kubeconfig` takes.
#[derive(Args)]
#[command(group = ArgGroup::new("roots").required(true).multiple(true))]
pub(crate) struct KubeconfigArguments {
    /// A view; may be repeated.
    #[arg(long = "view", value_name = "VIEW", group = "roots", value_parser = object_name)]
    views: Vec<String>,
    /// A fleet; may be repeated.
    #[arg(long = "fleet", value_name = "FLEET", group = "roots", value_parser = object_name)]
    fleets: Vec<String>,
    /// A child cluster; may be repeated.
    #[arg(long = "cluster", value_name = "CLUSTER", group = "roots", value_parser = object_name)]
    clusters: Vec<String>,
    /// Every view, fleet and cluster that you may enter.
    #[arg(long, group = "roots", conflicts_with_all = ["views", "fleets", "clusters", "no_check"])]
    all: bool,
    /// The kubeconfig with the context of the hub [default: $KUBECONFIG or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the hub, whose user and server are used [default: the current one].
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
    /// Write a kubeconfig of its own to this new file, instead of printing it. Credentials are in it.
    #[arg(long, value_name = "FILE", conflicts_with = "merge")]
    output: Option<PathBuf>,
    /// Add the contexts to the file that the hub's context is in, and change nothing else there.
    #[arg(long)]
    merge: bool,
    /// What to call the context; of several, what their names begin with [default: the hub's context].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The namespace that is used when none is named [default: that of the hub's context].
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
    /// Make the first one the current context.
    #[arg(long, requires = "merge")]
    set_current: bool,
    /// Do not ask the hub whether it has these and lets you in.
    #[arg(long)]
    no_check: bool,
}

/// Writes the contexts.
///
/// # Errors
/// What keeps them from being of use, and what to do.
pub(crate) async fn run(arguments: KubeconfigArguments) -> Result<()> {
    let source = Source::load(arguments.kubeconfig.as_deref())?;
    let chosen = source.choose(arguments.context.as_deref())?;
    let roots = if arguments.no_check {
        arguments.roots()
    } else {
        checked(&arguments, &chosen).await?
    };
    let additions = additions(roots, arguments.name.as_deref(), chosen.beginning());
    let namespace = arguments.namespace.as_deref();
    let mut out = std::io::stdout().lock();
    if arguments.merge {
        let file = merge(&source, &chosen, &additions, namespace, arguments.set_current)?;
        return Ok(announce(&mut out, &additions, &file, "")?);
    }
    let text = serde_saphyr::to_string(&document(&chosen, &additions, namespace))?;
    match &arguments.output {
        None => Ok(out.write_all(text.as_bytes())?),
        Some(path) => {
            write_new(path, &text)?;
            let flag = format!(" --kubeconfig {}", path.display());
            Ok(announce(&mut out, &additions, path, &flag)?)
        }
    }
}

impl KubeconfigArguments {
    /// The roots that are named, each once.
    fn roots(&self) -> Vec<Root> {
        let named = [
            (Kind::View, &self.views),
            (Kind::Fleet, &self.fleets),
            (Kind::Cluster, &self.clusters),
        ];
        let named = named
            .into_iter()
            .flat_map(|(kind, names)| names.iter().map(move |name| (kind, name)));
        let mut roots: Vec<Root> = Vec::new();
        for (kind, name) in named {
            let root = Root {
                kind,
                name: name.clone(),
            };
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        roots
    }
}

/// The roots, of which the hub says that this user may enter them.
async fn checked(arguments: &KubeconfigArguments, chosen: &Chosen) -> Result<Vec<Root>> {
    let asking = Asking::new(chosen.client(ANSWER).await?, &chosen.hub);
    if arguments.all {
        let (roots, warnings) = asking.all().await?;
        for warning in warnings {
            eprintln!("warning: {warning}");
        }
        if roots.is_empty() {
            bail!(
                "you may not enter any view, fleet or cluster of the hub at {}",
                chosen.hub
            );
        }
        return Ok(roots);
    }
    let roots = arguments.roots();
    for root in &roots {
        if let Some(warning) = asking.check(root).await? {
            eprintln!("warning: {warning}");
        }
    }
    Ok(roots)
}

/// Puts the contexts into the user's files, and returns the one of the hub's context.
fn merge(
    source: &Source,
    chosen: &Chosen,
    additions: &[Addition],
    namespace: Option<&str>,
    set_current: bool,
) -> Result<PathBuf> {
    for (file, edits) in edits(source, chosen, additions, namespace)? {
        edit(&file, |content| edits.iter().try_for_each(|edit| edit.apply(content)))
            .context("the contexts are not added")?;
    }
    if let Some(first) = additions.first().filter(|_| set_current) {
        let set = |content: &mut source::Fields| {
            content.insert("current-context".to_owned(), Value::from(first.name.as_str()));
            Ok(())
        };
        edit(source.default_file(), set).with_context(|| {
            format!(
                "the contexts are written, but {} is not made the current one",
                first.name
            )
        })?;
    }
    Ok(chosen.context.file.clone())
}

/// Writes a file that only its owner may read, and that was not there.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let shown = path.display();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{shown} is there already and is not overwritten; choose another file, or use --merge")
        }
        file => file.with_context(|| format!("{shown} cannot be written"))?,
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("{shown} cannot be written"))
}

fn announce(out: &mut impl std::io::Write, additions: &[Addition], file: &Path, flag: &str) -> std::io::Result<()> {
    let file = file.display();
    for Addition { name, root } in additions {
        writeln!(out, "context {name} ({root}) is in {file}")?;
    }
    if let Some(first) = additions.first() {
        writeln!(out, "try:\n  kubectl{flag} --context {} get pods", first.name)?;
    }
    Ok(())
}

fn object_name(text: &str) -> Result<String, String> {
    if is_dns1123_subdomain(text) {
        return Ok(text.to_owned());
    }
    Err("a name has the characters a-z, 0-9, '-' and '.', and begins and ends with one of a-z and 0-9".to_owned())
}

fn namespace(text: &str) -> Result<String, String> {
    if is_dns1123_label(text) {
        return Ok(text.to_owned());
    }
    Err("a namespace has at most 63 characters of a-z, 0-9 and '-'".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        kubeconfig: KubeconfigArguments,
    }

    fn parsed(flags: &[&str]) -> Option<Vec<String>> {
        let arguments = Command::try_parse_from(["umbra"].iter().chain(flags)).ok()?.kubeconfig;
        Some(arguments.roots().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn something_has_to_be_named() {
        let several = parsed(&[
            "--view",
            "a",
            "--cluster",
            "c",
            "--view",
            "b",
            "--view",
            "a",
            "--fleet",
            "f",
        ]);
        assert_eq!(several.unwrap(), ["view a", "view b", "fleet f", "cluster c"]);
        assert_eq!(parsed(&["--all"]).unwrap(), [""; 0]);
        assert!(parsed(&[]).is_none() && parsed(&["--all", "--view", "a"]).is_none());
        assert!(parsed(&["--view", "A/b"]).is_none() && parsed(&["--view", "a", "--set-current"]).is_none());
        assert!(parsed(&["--view", "a", "--merge", "--output", "x"]).is_none());
    }

    #[test]
    fn a_new_file_is_private_and_none_is_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        write_new(&path, "a").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            write_new(&path, "b")
                .unwrap_err()
                .to_string()
                .contains("not overwritten")
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a");
    }
}
