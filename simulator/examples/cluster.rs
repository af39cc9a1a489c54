//! Runs one simulated cluster until its standard input ends: `cluster NAME FOLDER`. Writes the kubeconfig into the folder
//! and says where it is.

use std::io::Write as _;
use std::path::PathBuf;

use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_simulator::{Data, Options, SimulatedCluster, workloads};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(folder)) = (arguments.next(), arguments.next().map(PathBuf::from)) else {
        return Err("usage: cluster NAME FOLDER".into());
    };
    let options = Options {
        data: Data::Path(folder.clone()),
        ..Options::new(&name)
    };
    let tracker = TaskTracker::new();
    let cluster = SimulatedCluster::start(options, &tracker, CancellationToken::new()).await?;
    cluster
        .create_missing(&workloads::objects(&name))
        .await
        .map_err(|status| status.message)?;
    let kubeconfig = folder.join("kubeconfig");
    umbra_auth::certificates::write_private(&kubeconfig, cluster.kubeconfig().to_yaml().as_bytes())?;
    writeln!(std::io::stdout(), "export KUBECONFIG={}", kubeconfig.display())?;
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    cluster.shut_down().await;
    Ok(())
}
