"""Enrolment of persons from photos or vectors, under a consent."""
