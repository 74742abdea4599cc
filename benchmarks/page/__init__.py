"""A comparison as one HTML page: `render.render_page(data.page_of(...))`."""
