"""From QDQ form to integer operators: what is known of each tensor, and one rule for each operator."""
