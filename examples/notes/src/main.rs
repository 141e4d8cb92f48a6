fn main() -> std::process::ExitCode {
    tenantry::Service::new(notes::extension()).main()
}
