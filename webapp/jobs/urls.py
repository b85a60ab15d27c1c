"""Addresses of the app `jobs`."""

from django.urls import path

from webapp.jobs import views

urlpatterns = [
    path("", views.jobs, name="jobs"),
    path("new/", views.job_new, name="job_new"),
    path("estimate/", views.job_estimate, name="job_estimate"),
    path("<uuid:pk>/", views.job, name="job"),
    path("<uuid:pk>/events/", views.job_events, name="job_events"),
    path("<uuid:pk>/cancel/", views.job_cancel, name="job_cancel"),
    path("<uuid:pk>/pause/", views.job_pause, name="job_pause"),
    path("<uuid:pk>/resume/", views.job_resume, name="job_resume"),
    path("<uuid:pk>/retry/", views.job_retry, name="job_retry"),
    path("<uuid:pk>/delete/", views.job_delete, name="job_delete"),
    path("<uuid:pk>/spec.yaml", views.job_spec, name="job_spec"),
    path("<uuid:pk>/log.txt", views.job_log, name="job_log"),
]
