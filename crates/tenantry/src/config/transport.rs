use tenantry_persistence::Transport;

use super::url::are_protected;
use super::{Configuration, ConfigurationError, Profile};

impl Configuration {
    /// In production everything that leaves the machine is encrypted and its server is verified, unless a setting says
    /// otherwise. URLs of PostgreSQL that the driver cannot read are refused in each profile.
    pub fn check_transport(&self) -> Result<(), ConfigurationError> {
        let database = &self.database;
        let urls = [
            ("database.url", &database.url),
            ("database.platform_url", &database.platform_url),
            ("database.owner_url", &database.owner_url),
            ("database.admin_url", &database.admin_url),
        ];
        for (key, url) in urls.into_iter().filter(|(_, url)| !url.is_empty()) {
            self.check_database_transport(key, url.reveal())?;
        }
        let accepted = self.profile != Profile::Production || self.redis.allow_plaintext;
        if !accepted && !are_protected(self.redis.url.reveal()) {
            let problem = "must begin with rediss:// and verify the server, as it leads over a network; set \
                           redis.allow_plaintext where the network protects it";
            return Err(ConfigurationError::invalid("redis.url", problem));
        }
        Ok(())
    }

    /// The same for one URL of PostgreSQL, which need not be in the configuration.
    pub fn check_database_transport(&self, key: &'static str, url: &str) -> Result<(), ConfigurationError> {
        let transport =
            Transport::of(url).map_err(|error| ConfigurationError::invalid(key, error.to_string()))?;
        let accepted = self.profile != Profile::Production || self.database.allow_plaintext;
        if transport == Transport::Open && !accepted {
            let problem = "must have sslmode=verify-full, as it leads over a network; set database.allow_plaintext \
                           where the network protects it";
            return Err(ConfigurationError::invalid(key, problem));
        }
        Ok(())
    }

    /// What is accepted without TLS in production: the keys of the configuration that say so.
    pub fn plaintext(&self) -> Vec<&'static str> {
        let allowed = [
            (self.database.allow_plaintext, "database.allow_plaintext"),
            (self.redis.allow_plaintext, "redis.allow_plaintext"),
        ];
        let production = self.profile == Profile::Production;
        let set = allowed.into_iter().filter(|(set, _)| production && *set);
        set.map(|(_, key)| key).collect()
    }
}
