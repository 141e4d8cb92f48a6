use tenantry::Service;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    Service::new(notes::extension()).command_line().await
}
