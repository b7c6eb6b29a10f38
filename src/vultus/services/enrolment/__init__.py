"""Enrolment: from photos or vectors to the templates of a person, under a consent."""
