use serde_json::{Value, json};

/// An answer that is an error, in Stripe's form.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: u16,
    kind: &'static str,
    code: Option<String>,
    param: Option<String>,
    message: String,
}

impl Problem {
    pub fn missing(param: &str) -> Self {
        Self::invalid(
            "parameter_missing",
            param,
            &format!("Missing required param: {param}."),
        )
    }

    pub fn invalid(code: &str, param: &str, message: &str) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error",
            code: Some(code.to_owned()),
            param: Some(param.to_owned()),
            message: message.to_owned(),
        }
    }

    pub fn refused(code: &str, message: &str) -> Self {
        Self {
            param: None,
            ..Self::invalid(code, "", message)
        }
    }

    /// There is no such object: 404 where the address names it, 400 where a parameter does.
    pub fn no_such(what: &str, id: &str, param: Option<&str>) -> Self {
        Self {
            status: if param.is_some() { 400 } else { 404 },
            ..Self::invalid(
                "resource_missing",
                param.unwrap_or("id"),
                &format!("No such {what}: '{id}'"),
            )
        }
    }

    /// There will be no invoice.
    pub fn nothing_upcoming() -> Self {
        Self {
            status: 404,
            ..Self::refused("invoice_upcoming_none", "No upcoming invoices for customer.")
        }
    }

    pub fn no_route(method: &str, path: &str) -> Self {
        Self {
            status: 404,
            code: None,
            ..Self::refused("", &format!("Unrecognized request URL ({method}: {path})."))
        }
    }

    pub fn unauthenticated() -> Self {
        Self {
            status: 401,
            code: None,
            ..Self::refused("", "Invalid API Key provided.")
        }
    }

    pub fn declined() -> Self {
        Self {
            status: 402,
            kind: "card_error",
            ..Self::refused("card_declined", "Your card was declined.")
        }
    }

    pub fn other_parameters() -> Self {
        Self {
            kind: "idempotency_error",
            code: None,
            ..Self::refused(
                "",
                "Keys for idempotent requests can only be used with the same parameters they were first \
                 used with.",
            )
        }
    }

    pub fn too_many() -> Self {
        Self {
            status: 429,
            ..Self::refused("rate_limit", "Request rate limit exceeded.")
        }
    }

    pub fn failed() -> Self {
        Self {
            status: 500,
            kind: "api_error",
            code: None,
            ..Self::refused("", "An unknown error occurred")
        }
    }

    pub fn body(&self) -> Value {
        let mut error = json!({ "type": self.kind, "message": self.message });
        if let Some(code) = &self.code {
            error["code"] = json!(code);
        }
        if let Some(param) = &self.param {
            error["param"] = json!(param);
        }
        json!({ "error": error })
    }
}
