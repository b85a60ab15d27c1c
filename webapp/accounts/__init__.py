"""Users, teams, memberships, invitations, API keys and the audit trail."""
