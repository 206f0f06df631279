require "rails"
require "active_record/railtie"
require "action_controller/railtie"

module Notes
  # A list of notes in Rails, with two databases.
  class Application < Rails::Application
    config.root = File.expand_path("..", __dir__)
    config.load_defaults 6.1
    config.eager_load = true
    config.api_only = true
    config.logger = ActiveSupport::Logger.new($stderr)
    config.log_level = :info
    config.hosts.clear
    # The same on every node, or sessions would end with each change of node.
    config.secret_key_base = ENV.fetch("SECRET_KEY_BASE", "not a secret: this is an example")
    # Errors are pages with their status, as in production: Litepilot sends a read that failed to the primary.
    config.consider_all_requests_local = false
    # `on_promote` runs where nobody develops.
    config.active_record.dump_schema_after_migration = false
  end
end
