Rails.application.routes.draw do
  get "healthz", to: "notes#health"
  get "audit", to: "notes#audit"
  resources :notes, only: %i[index create show]
end
