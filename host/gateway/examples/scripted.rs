//! A gateway over scripted models and components, for trying clients without weights: `cargo run --example scripted -p
//! stockade-gateway`. Models are `m` and `e`, the key is printed; a model says back what it is told.

#[path = "../tests/gateway/fakes.rs"]
mod fakes;

use stockade_gateway::Settings;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let parts = fakes::parts(Settings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{} {}", listener.local_addr()?, fakes::ADMIN);
    parts.gateway.serve(listener, std::future::pending()).await
}
